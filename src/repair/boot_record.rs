//! Boot code of our own for the master boot record of a BIOS machine whose code is gone.
//!
//! It does what the code of every system does there: moves itself to 0x600, looks for the active partition, reads its first sector by the extended
//! read of the BIOS, and starts it. Windows 7 was started by it ([boot-evidence.md](../../docs/boot-evidence.md)). Code that is there is never replaced.
//!
//! ```text
//! ; Generic master boot record: starts the boot sector of the active partition.
//! bits 16
//! org 0x600
//! start:
//!     cli
//!     xor ax, ax
//!     mov ss, ax
//!     mov sp, 0x7c00
//!     mov ds, ax
//!     mov es, ax
//!     sti
//!     cld
//!     mov si, 0x7c00
//!     mov di, 0x600
//!     mov cx, 256
//!     rep movsw
//!     jmp 0:relocated
//! relocated:
//!     mov si, 0x7be          ; first entry of the table
//!     mov cx, 4
//! .next:
//!     test byte [si], 0x80
//!     jnz .found
//!     add si, 16
//!     loop .next
//!     mov bx, no_active
//!     jmp stop
//! .found:
//!     mov [entry], si
//!     mov eax, [si + 8]      ; first sector of the partition
//!     mov [packet + 8], eax
//!     mov bp, 5              ; attempts
//! .read:
//!     mov si, packet
//!     mov ah, 0x42           ; extended read
//!     int 0x13
//!     jnc .loaded
//!     xor ah, ah             ; reset the disk and try again
//!     int 0x13
//!     dec bp
//!     jnz .read
//!     mov bx, read_error
//!     jmp stop
//! .loaded:
//!     cmp word [0x7dfe], 0xaa55
//!     mov bx, no_system
//!     jne stop
//!     mov si, [entry]
//!     mov bp, si
//!     jmp 0:0x7c00           ; DL is still the drive of the BIOS
//! stop:
//!     mov al, [bx]
//!     or al, al
//!     jz .halt
//!     inc bx
//!     push bx
//!     mov ah, 0x0e
//!     mov bx, 7
//!     int 0x10
//!     pop bx
//!     jmp stop
//! .halt:
//!     hlt
//!     jmp .halt
//! entry: dw 0
//! align 4
//! packet: db 16, 0, 1, 0
//!     dw 0x7c00, 0
//!     dd 0, 0
//! no_active: db "No active partition", 0
//! read_error: db "Error loading the boot sector", 0
//! no_system: db "The active partition has no boot sector", 0
//! ```

use super::change::Change;
use super::sectors::plan_sectors;
use vmrescue_base::bytes::is_zero;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_partition::TableKind;
use vmrescue_windows::Machine;

/// Bytes of code ahead of the disk signature.
const CODE_BYTES: usize = 440;

/// The code above, up to its texts.
#[rustfmt::skip]
const CODE: [u8; 148] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0x8e, 0xd8, 0x8e, 0xc0, 0xfb, 0xfc, 0xbe, 0x00,
    0x7c, 0xbf, 0x00, 0x06, 0xb9, 0x00, 0x01, 0xf3, 0xa5, 0xea, 0x1e, 0x06, 0x00, 0x00, 0xbe, 0xbe,
    0x07, 0xb9, 0x04, 0x00, 0xf6, 0x04, 0x80, 0x75, 0x0a, 0x83, 0xc6, 0x10, 0xe2, 0xf6, 0xbb, 0x94,
    0x06, 0xeb, 0x3a, 0x89, 0x36, 0x82, 0x06, 0x66, 0x8b, 0x44, 0x08, 0x66, 0xa3, 0x8c, 0x06, 0xbd,
    0x05, 0x00, 0xbe, 0x84, 0x06, 0xb4, 0x42, 0xcd, 0x13, 0x73, 0x0c, 0x30, 0xe4, 0xcd, 0x13, 0x4d,
    0x75, 0xf0, 0xbb, 0xa8, 0x06, 0xeb, 0x16, 0x81, 0x3e, 0xfe, 0x7d, 0x55, 0xaa, 0xbb, 0xc6, 0x06,
    0x75, 0x0b, 0x8b, 0x36, 0x82, 0x06, 0x89, 0xf5, 0xea, 0x00, 0x7c, 0x00, 0x00, 0x8a, 0x07, 0x08,
    0xc0, 0x74, 0x0c, 0x43, 0x53, 0xb4, 0x0e, 0xbb, 0x07, 0x00, 0xcd, 0x10, 0x5b, 0xeb, 0xee, 0xf4,
    0xeb, 0xfd, 0x00, 0x00, 0x10, 0x00, 0x01, 0x00, 0x00, 0x7c, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00,
];
/// Its texts, each closed by a zero.
const TEXTS: &[u8] =
    b"No active partition\0Error loading the boot sector\0The active partition has no boot sector\0";

/// Writes boot code into a master boot record that has none; nothing where there is some.
///
/// # Errors
/// `Invalid` for a disk without an MBR; of reading it.
pub fn write_boot_record(machine: &Machine) -> Result<Vec<Change>> {
    if machine.table.kind != TableKind::Mbr {
        return Err(Error::invalid(Layer::Mbr, "only a disk with an MBR starts by boot code"));
    }
    if !is_zero(&machine.disk.read_vec(0, CODE_BYTES)?) {
        return Ok(Vec::new());
    }
    let code = [&CODE[..], TEXTS].concat();
    plan_sectors(&machine.disk, "write boot code into the master boot record", |disk| disk.write_at(0, &code))
}
