//! The server side of the network block device protocol: fixed newstyle negotiation, simple replies, read-only. Source: the protocol document of
//! the NetworkBlockDevice project (`doc/proto.md`).

use crate::block::Disk;
use std::io::{self, Read, Write};

const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const ANSWER_MAGIC: u32 = 0x6744_6698;

const OPTION_EXPORT_NAME: u32 = 1;
const OPTION_ABORT: u32 = 2;
const OPTION_LIST: u32 = 3;
const OPTION_INFO: u32 = 6;
const OPTION_GO: u32 = 7;

const REPLY_ACK: u32 = 1;
const REPLY_SERVER: u32 = 2;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = 0x8000_0001;
const REPLY_INVALID: u32 = 0x8000_0003;
const REPLY_UNKNOWN: u32 = 0x8000_0006;

const FLAGS: u16 = 1 | 2 | 1 << 8; // has flags, read-only, several connections see the same
const COMMAND_READ: u16 = 0;
const COMMAND_DISCONNECT: u16 = 2;
const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;

/// Longest option that is read, and longest read that is answered.
const MAX_OPTION_BYTES: u32 = 64 << 10;
const MAX_READ_BYTES: u32 = 32 << 20;

/// A disk or volume under a name; the empty name is the one that clients get who ask for none.
#[derive(Debug, Clone)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub disk: Disk,
}

fn number<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn reply(stream: &mut impl Write, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let mut bytes = REPLY_MAGIC.to_be_bytes().to_vec();
    for field in [option, kind, data.len() as u32] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend(data);
    stream.write_all(&bytes)
}

fn find<'a>(exports: &'a [Export], name: &[u8]) -> Option<&'a Export> {
    let name = std::str::from_utf8(name).ok()?;
    exports.iter().find(|export| export.name.eq_ignore_ascii_case(name))
}

/// Speaks with one client until it leaves.
///
/// # Errors
/// Of the stream: the client is gone, or does not speak this protocol.
pub fn serve_client(stream: &mut (impl Read + Write), exports: &[Export]) -> io::Result<()> {
    match negotiate(stream, exports)? {
        Some(export) => transmit(stream, &export.disk),
        None => Ok(()),
    }
}

/// The export that the client chose; `None` when it left.
fn negotiate<'a>(stream: &mut (impl Read + Write), exports: &'a [Export]) -> io::Result<Option<&'a Export>> {
    stream.write_all(b"NBDMAGICIHAVEOPT\x00\x03")?;
    let client = u32::from_be_bytes(number(stream)?);
    loop {
        if u64::from_be_bytes(number(stream)?) != OPTION_MAGIC {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (option, length) = (u32::from_be_bytes(number(stream)?), u32::from_be_bytes(number(stream)?));
        if length > MAX_OPTION_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data)?;
        match option {
            OPTION_EXPORT_NAME => {
                // This option knows no refusal: who asks for what is not there is left.
                let Some(export) = find(exports, &data) else { return Ok(None) };
                let mut bytes = export.disk.len().to_be_bytes().to_vec();
                bytes.extend(FLAGS.to_be_bytes());
                if client & 2 == 0 {
                    bytes.extend([0; 124]);
                }
                stream.write_all(&bytes)?;
                return Ok(Some(export));
            }
            OPTION_ABORT => {
                reply(stream, option, REPLY_ACK, &[])?;
                return Ok(None);
            }
            OPTION_LIST => {
                for export in exports {
                    let mut entry = (export.name.len() as u32).to_be_bytes().to_vec();
                    entry.extend(export.name.as_bytes());
                    reply(stream, option, REPLY_SERVER, &entry)?;
                }
                reply(stream, option, REPLY_ACK, &[])?;
            }
            OPTION_INFO | OPTION_GO => {
                let length = data.get(..4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize);
                let name = length.and_then(|length| data.get(4..4usize.checked_add(length)?));
                match name.map(|name| find(exports, name)) {
                    None => reply(stream, option, REPLY_INVALID, &[])?,
                    Some(None) => reply(stream, option, REPLY_UNKNOWN, b"no such export")?,
                    Some(Some(export)) => {
                        describe(stream, option, export)?;
                        if option == OPTION_GO {
                            return Ok(Some(export));
                        }
                    }
                }
            }
            _ => reply(stream, option, REPLY_UNSUPPORTED, &[])?,
        }
    }
}

/// Size, flags and block sizes of an export.
fn describe(stream: &mut impl Write, option: u32, export: &Export) -> io::Result<()> {
    let mut info = vec![0, 0];
    info.extend(export.disk.len().to_be_bytes());
    info.extend(FLAGS.to_be_bytes());
    reply(stream, option, REPLY_INFO, &info)?;
    let mut blocks = vec![0, 3];
    for size in [1u32, 64 << 10, MAX_READ_BYTES] {
        blocks.extend(size.to_be_bytes());
    }
    reply(stream, option, REPLY_INFO, &blocks)?;
    reply(stream, option, REPLY_ACK, &[])
}

fn transmit(stream: &mut (impl Read + Write), disk: &Disk) -> io::Result<()> {
    let mut answer = Vec::new();
    loop {
        let head: [u8; 28] = number(stream)?;
        let (fixed, rest) = head.split_at(8);
        if fixed[..4] != REQUEST_MAGIC.to_be_bytes() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let command = u16::from_be_bytes([fixed[6], fixed[7]]);
        let cookie = &rest[..8];
        let offset = crate::bytes::u64_at(rest, 8).unwrap_or_default().swap_bytes();
        let length = crate::bytes::u32_at(rest, 16).unwrap_or_default().swap_bytes();
        answer.clear();
        answer.extend(ANSWER_MAGIC.to_be_bytes());
        let error = match command {
            COMMAND_DISCONNECT => return Ok(()),
            COMMAND_READ if length > MAX_READ_BYTES => EINVAL,
            COMMAND_READ => {
                answer.resize(16 + length as usize, 0);
                match disk.read_at(offset, &mut answer[16..]) {
                    Ok(()) => 0,
                    Err(e) if e.kind() == crate::ErrorKind::Invalid => EINVAL,
                    Err(_) => EIO,
                }
            }
            // A write carries its data, which must be taken off the stream.
            1 => {
                io::copy(&mut stream.take(u64::from(length)), &mut io::sink())?;
                EPERM
            }
            _ => EPERM,
        };
        answer.resize(if error == 0 { 16 + length as usize } else { 16 }, 0);
        answer[4..8].copy_from_slice(&error.to_be_bytes());
        answer[8..16].copy_from_slice(cookie);
        stream.write_all(&answer)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::MemoryDevice;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// A stream that gives what was recorded and keeps what is said.
    struct Recorded(io::Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Recorded {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.0.read(buf)
        }
    }

    impl Write for Recorded {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn exports() -> Vec<Export> {
        let disk = Disk::new(Arc::new(MemoryDevice::new((0..=255).collect())));
        vec![Export { name: String::new(), disk }]
    }

    fn session(requests: &[(u16, u64, u32)]) -> Vec<u8> {
        let mut bytes = 3u32.to_be_bytes().to_vec();
        bytes.extend(OPTION_MAGIC.to_be_bytes());
        bytes.extend(OPTION_EXPORT_NAME.to_be_bytes());
        bytes.extend(0u32.to_be_bytes());
        for (command, offset, length) in requests {
            bytes.extend(REQUEST_MAGIC.to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(command.to_be_bytes());
            bytes.extend(7u64.to_be_bytes());
            bytes.extend(offset.to_be_bytes());
            bytes.extend(length.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn reads_are_answered_and_all_else_is_refused() {
        let input =
            session(&[(COMMAND_READ, 10, 4), (COMMAND_READ, 250, 10), (6, 0, 4), (COMMAND_DISCONNECT, 0, 0)]);
        let mut stream = Recorded(io::Cursor::new(input), Vec::new());
        serve_client(&mut stream, &exports()).unwrap();
        let said = &stream.1[18 + 10..];
        assert_eq!((&said[4..8], &said[16..20]), (&[0, 0, 0, 0][..], &[10, 11, 12, 13][..]));
        assert_eq!(said[20 + 7], EINVAL as u8, "beyond the end");
        assert_eq!(said[36 + 7], EPERM as u8, "writing zeros");
        assert_eq!(said.len(), 52);
    }

    proptest! {
        #[test]
        fn any_client_is_survived(noise in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..60) {
            let mut stream = Recorded(io::Cursor::new(noise), Vec::new());
            let _left = serve_client(&mut stream, &exports());
            let mut input = session(&[(COMMAND_READ, u64::MAX, u32::MAX), (COMMAND_READ, 3, 9)]);
            input.truncate(input.len().saturating_sub(cut));
            let mut stream = Recorded(io::Cursor::new(input), Vec::new());
            let _left = serve_client(&mut stream, &exports());
        }
    }
}
