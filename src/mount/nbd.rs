//! The server side of the network block device protocol: fixed newstyle negotiation, simple and structured replies,
//! `base:allocation`, and writing into a staged disk. Source: the protocol document of the NetworkBlockDevice project
//! (`doc/proto.md`).
//!
//! Writes are staged; `NBD_CMD_FLUSH`, a write with FUA and a client that leaves publish them. Missing: extended headers,
//! resizing, `NBD_OPT_STARTTLS`.

use std::io::{self, Read, Write};
use std::sync::{PoisonError, RwLock};
use vmrescue_base::error::{ErrorKind, Result};
use vmrescue_block::{Disk, DiskMut, ExtentKind};

const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const ANSWER_MAGIC: u32 = 0x6744_6698;
const CHUNK_MAGIC: u32 = 0x668e_33ef;

const OPTION_EXPORT_NAME: u32 = 1;
const OPTION_ABORT: u32 = 2;
const OPTION_LIST: u32 = 3;
const OPTION_INFO: u32 = 6;
const OPTION_GO: u32 = 7;
const OPTION_STRUCTURED: u32 = 8;
const OPTION_LIST_CONTEXT: u32 = 9;
const OPTION_SET_CONTEXT: u32 = 10;

const REPLY_ACK: u32 = 1;
const REPLY_SERVER: u32 = 2;
const REPLY_INFO: u32 = 3;
const REPLY_CONTEXT: u32 = 4;
const REPLY_UNSUPPORTED: u32 = 0x8000_0001;
const REPLY_INVALID: u32 = 0x8000_0003;
const REPLY_UNKNOWN: u32 = 0x8000_0006;

/// Has flags, several connections see the same, and is read-only.
const READ_ONLY_FLAGS: u16 = 1 | 2 | 1 << 8;
/// Has flags, flush, FUA, trim, writing zeros; several connections see the same.
const WRITABLE_FLAGS: u16 = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 8;
const COMMAND_READ: u16 = 0;
const COMMAND_WRITE: u16 = 1;
const COMMAND_DISCONNECT: u16 = 2;
const COMMAND_FLUSH: u16 = 3;
const COMMAND_TRIM: u16 = 4;
const COMMAND_ZEROES: u16 = 6;
const COMMAND_STATUS: u16 = 7;
const FLAG_FUA: u16 = 1;
const FLAG_REQUEST_ONE: u16 = 1 << 3;
const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;

const CHUNK_NONE: u16 = 0;
const CHUNK_DATA: u16 = 1;
const CHUNK_HOLE: u16 = 2;
const CHUNK_STATUS: u16 = 5;
const CHUNK_ERROR: u16 = 1 << 15 | 1;
/// Chunk flag: the last of a reply.
const DONE: u16 = 1;
/// `base:allocation`: a hole that reads as zero.
const HOLE_ZERO: u32 = 3;
/// The only context, and its number.
const CONTEXT: &[u8] = b"base:allocation";
const CONTEXT_ID: u32 = 1;

/// Longest option that is read, and longest read or write that is answered.
const MAX_OPTION_BYTES: u32 = 64 << 10;
const MAX_TRANSFER_BYTES: u32 = 32 << 20;
/// Most extents of one answer.
const MAX_EXTENTS: usize = 1024;

/// Makes everything durable that was written.
pub type Publish<'a> = dyn Fn() -> Result<()> + Sync + 'a;

/// What is served.
pub struct Service<'a> {
    /// All exports; the first is for clients who ask for none.
    pub exports: &'a [Export],
    /// Publishes; `None` when nothing can be written.
    pub publish: Option<&'a Publish<'a>>,
    /// Held for reading by writes, for writing by whoever publishes: nothing may be staged meanwhile.
    gate: RwLock<()>,
}

impl<'a> Service<'a> {
    /// Serves `exports`; with `publish` those that have a writer can be written.
    pub fn new(exports: &'a [Export], publish: Option<&'a Publish<'a>>) -> Service<'a> {
        Service { exports, publish, gate: RwLock::new(()) }
    }

    fn publish(&self) -> Result<()> {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.publish.map_or(Ok(()), |publish| publish())
    }
}

/// A disk or volume under a name; the empty name is the one that clients get who ask for none.
#[derive(Debug, Clone)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub disk: Disk,
    /// The same for writing.
    pub writer: Option<DiskMut>,
}

impl Export {
    fn flags(&self) -> u16 {
        if self.writer.is_some() { WRITABLE_FLAGS } else { READ_ONLY_FLAGS }
    }
}

/// What a client agreed to.
struct Agreed<'a> {
    export: &'a Export,
    structured: bool,
    context: bool,
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

/// A text behind its length, and what follows.
fn counted(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = data.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes) as usize)?;
    let end = length.checked_add(4)?;
    Some((data.get(4..end)?, data.get(end..)?))
}

/// Speaks with one client until it leaves; then publishes what it wrote.
///
/// # Errors
/// Of the stream: the client is gone, or does not speak this protocol.
pub fn serve_client(stream: &mut (impl Read + Write), service: &Service<'_>) -> io::Result<()> {
    let Some(agreed) = negotiate(stream, service.exports)? else { return Ok(()) };
    let done = transmit(stream, &agreed, service);
    if agreed.export.writer.is_some() {
        // Also when it broke off: what it was told is written is as good as the rest.
        service.publish().map_err(|e| io::Error::other(e.to_string()))?;
    }
    done
}

/// The export that the client chose; `None` when it left.
fn negotiate<'a>(stream: &mut (impl Read + Write), exports: &'a [Export]) -> io::Result<Option<Agreed<'a>>> {
    stream.write_all(b"NBDMAGICIHAVEOPT\x00\x03")?;
    let client = u32::from_be_bytes(number(stream)?);
    let (mut structured, mut context) = (false, false);
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
                bytes.extend(export.flags().to_be_bytes());
                if client & 2 == 0 {
                    bytes.extend([0; 124]);
                }
                stream.write_all(&bytes)?;
                return Ok(Some(Agreed { export, structured, context }));
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
            OPTION_STRUCTURED if data.is_empty() => {
                structured = true;
                reply(stream, option, REPLY_ACK, &[])?;
            }
            OPTION_LIST_CONTEXT | OPTION_SET_CONTEXT => {
                context =
                    contexts(stream, option, &data, exports, structured)? && option == OPTION_SET_CONTEXT;
            }
            OPTION_INFO | OPTION_GO => match counted(&data).map(|(name, _)| find(exports, name)) {
                None => reply(stream, option, REPLY_INVALID, &[])?,
                Some(None) => reply(stream, option, REPLY_UNKNOWN, b"no such export")?,
                Some(Some(export)) => {
                    describe(stream, option, export)?;
                    if option == OPTION_GO {
                        return Ok(Some(Agreed { export, structured, context }));
                    }
                }
            },
            _ => reply(stream, option, REPLY_UNSUPPORTED, &[])?,
        }
    }
}

/// Answers a question for metadata contexts; true when `base:allocation` was among them.
fn contexts(
    stream: &mut impl Write,
    option: u32,
    data: &[u8],
    exports: &[Export],
    structured: bool,
) -> io::Result<bool> {
    let parsed = counted(data).and_then(|(name, rest)| {
        let count = rest.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))?;
        let (mut queries, mut rest) = (Vec::new(), &rest[4..]);
        // Bounded: each query takes at least four bytes of the option.
        for _ in 0..count {
            let (query, after) = counted(rest)?;
            queries.push(query);
            rest = after;
        }
        Some((name, queries))
    });
    let Some((name, queries)) = parsed.filter(|_| structured || option == OPTION_LIST_CONTEXT) else {
        reply(stream, option, REPLY_INVALID, &[])?;
        return Ok(false);
    };
    if find(exports, name).is_none() {
        reply(stream, option, REPLY_UNKNOWN, b"no such export")?;
        return Ok(false);
    }
    let all = queries.is_empty() && option == OPTION_LIST_CONTEXT;
    let wanted = all
        || queries
            .iter()
            .any(|query| *query == CONTEXT || *query == b"base:" && option == OPTION_LIST_CONTEXT);
    if wanted {
        reply(stream, option, REPLY_CONTEXT, &[&CONTEXT_ID.to_be_bytes()[..], CONTEXT].concat())?;
    }
    reply(stream, option, REPLY_ACK, &[])?;
    Ok(wanted)
}

/// Size, flags and block sizes of an export.
fn describe(stream: &mut impl Write, option: u32, export: &Export) -> io::Result<()> {
    let mut info = vec![0, 0];
    info.extend(export.disk.len().to_be_bytes());
    info.extend(export.flags().to_be_bytes());
    reply(stream, option, REPLY_INFO, &info)?;
    let mut blocks = vec![0, 3];
    for size in [1u32, 64 << 10, MAX_TRANSFER_BYTES] {
        blocks.extend(size.to_be_bytes());
    }
    reply(stream, option, REPLY_INFO, &blocks)?;
    reply(stream, option, REPLY_ACK, &[])
}

/// A request of a client.
struct Asked {
    flags: u16,
    command: u16,
    cookie: [u8; 8],
    offset: u64,
    length: u32,
}

impl Asked {
    fn read(stream: &mut impl Read) -> io::Result<Asked> {
        if u32::from_be_bytes(number(stream)?) != REQUEST_MAGIC {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Asked {
            flags: u16::from_be_bytes(number(stream)?),
            command: u16::from_be_bytes(number(stream)?),
            cookie: number(stream)?,
            offset: u64::from_be_bytes(number(stream)?),
            length: u32::from_be_bytes(number(stream)?),
        })
    }
}

fn code(e: &vmrescue_base::Error) -> u32 {
    match e.kind() {
        ErrorKind::Invalid => EINVAL,
        ErrorKind::NoSpace => ENOSPC,
        ErrorKind::Refused => EPERM,
        _ => EIO,
    }
}

fn transmit(stream: &mut (impl Read + Write), agreed: &Agreed<'_>, service: &Service<'_>) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let asked = Asked::read(stream)?;
        match asked.command {
            COMMAND_DISCONNECT => return Ok(()),
            COMMAND_READ => read(stream, agreed, &asked, &mut buffer)?,
            COMMAND_STATUS if agreed.structured && agreed.context => status(stream, agreed, &asked)?,
            _ => {
                let done = change(stream, agreed, &asked, service, &mut buffer)?;
                answer(stream, agreed, &asked, done)?;
            }
        }
    }
}

/// Takes the data of a write off the stream, whatever becomes of it, and does what was asked. The error number, or 0.
fn change(
    stream: &mut impl Read,
    agreed: &Agreed<'_>,
    asked: &Asked,
    service: &Service<'_>,
    buffer: &mut Vec<u8>,
) -> io::Result<u32> {
    if asked.command == COMMAND_WRITE {
        if asked.length > MAX_TRANSFER_BYTES {
            io::copy(&mut stream.take(u64::from(asked.length)), &mut io::sink())?;
            return Ok(EINVAL);
        }
        buffer.resize(asked.length as usize, 0);
        stream.read_exact(buffer)?;
    }
    let Some(writer) = agreed.export.writer.as_ref().filter(|_| service.publish.is_some()) else {
        return Ok(EPERM);
    };
    let inside = asked.offset.checked_add(u64::from(asked.length)).is_some_and(|end| end <= writer.len());
    let writing = service.gate.read().unwrap_or_else(PoisonError::into_inner);
    let done = match asked.command {
        COMMAND_FLUSH => Ok(()),
        _ if !inside => return Ok(if asked.command == COMMAND_WRITE { ENOSPC } else { EINVAL }),
        COMMAND_WRITE => writer.write_at(asked.offset, buffer),
        COMMAND_ZEROES => writer.zero_at(asked.offset..asked.offset + u64::from(asked.length)),
        // Advice only: nothing has to read as zero afterwards.
        COMMAND_TRIM => Ok(()),
        _ => return Ok(EINVAL),
    };
    drop(writing);
    let durable = asked.flags & FLAG_FUA != 0 || asked.command == COMMAND_FLUSH;
    Ok(match done.and_then(|()| if durable { service.publish() } else { Ok(()) }) {
        Ok(()) => 0,
        Err(e) => code(&e),
    })
}

fn chunk(stream: &mut impl Write, asked: &Asked, flags: u16, kind: u16, parts: &[&[u8]]) -> io::Result<()> {
    let mut head = CHUNK_MAGIC.to_be_bytes().to_vec();
    head.extend(flags.to_be_bytes());
    head.extend(kind.to_be_bytes());
    head.extend(asked.cookie);
    head.extend((parts.iter().map(|part| part.len()).sum::<usize>() as u32).to_be_bytes());
    stream.write_all(&head)?;
    parts.iter().try_for_each(|part| stream.write_all(part))
}

/// An answer without data.
fn answer(stream: &mut impl Write, agreed: &Agreed<'_>, asked: &Asked, error: u32) -> io::Result<()> {
    if !agreed.structured {
        let mut bytes = ANSWER_MAGIC.to_be_bytes().to_vec();
        bytes.extend(error.to_be_bytes());
        bytes.extend(asked.cookie);
        return stream.write_all(&bytes);
    }
    if error == 0 {
        return chunk(stream, asked, DONE, CHUNK_NONE, &[]);
    }
    chunk(stream, asked, DONE, CHUNK_ERROR, &[&error.to_be_bytes(), &0u16.to_be_bytes()])
}

fn read(stream: &mut impl Write, agreed: &Agreed<'_>, asked: &Asked, buffer: &mut Vec<u8>) -> io::Result<()> {
    if asked.length > MAX_TRANSFER_BYTES {
        return answer(stream, agreed, asked, EINVAL);
    }
    if agreed.structured
        && asked.length > 0
        && is_hole(&agreed.export.disk, asked.offset, u64::from(asked.length))
    {
        let hole = [&asked.offset.to_be_bytes()[..], &asked.length.to_be_bytes()[..]];
        return chunk(stream, asked, DONE, CHUNK_HOLE, &hole);
    }
    buffer.resize(asked.length as usize, 0);
    match agreed.export.disk.read_at(asked.offset, buffer) {
        Err(e) => answer(stream, agreed, asked, code(&e)),
        Ok(()) if agreed.structured && asked.length > 0 => {
            chunk(stream, asked, DONE, CHUNK_DATA, &[&asked.offset.to_be_bytes(), buffer])
        }
        Ok(()) => {
            answer(stream, agreed, asked, 0)?;
            if agreed.structured { Ok(()) } else { stream.write_all(buffer) }
        }
    }
}

fn is_hole(disk: &Disk, offset: u64, length: u64) -> bool {
    disk.extent_at(offset)
        .is_ok_and(|extent| extent.kind == ExtentKind::Zero && extent.length_bytes >= length)
}

/// Which parts of a range are stored.
fn status(stream: &mut impl Write, agreed: &Agreed<'_>, asked: &Asked) -> io::Result<()> {
    let disk = &agreed.export.disk;
    let end = asked
        .offset
        .checked_add(u64::from(asked.length))
        .filter(|end| *end <= disk.len() && asked.length > 0);
    let Some(end) = end else { return answer(stream, agreed, asked, EINVAL) };
    let most = if asked.flags & FLAG_REQUEST_ONE != 0 { 1 } else { MAX_EXTENTS };
    let mut extents: Vec<(u32, u32)> = Vec::new();
    let mut at = asked.offset;
    // Bounded: every step takes at least one byte of the range.
    while at < end {
        let Ok(extent) = disk.extent_at(at) else { return answer(stream, agreed, asked, EIO) };
        let length = extent.length_bytes.clamp(1, end - at) as u32;
        let flags = if extent.kind == ExtentKind::Zero { HOLE_ZERO } else { 0 };
        let is_full = extents.len() == most;
        match extents.last_mut() {
            Some((known, before)) if *before == flags => *known += length,
            _ if is_full => break,
            _ => extents.push((length, flags)),
        }
        at += u64::from(length);
    }
    let list: Vec<u8> = extents
        .iter()
        .flat_map(|(length, flags)| [length.to_be_bytes(), flags.to_be_bytes()].concat())
        .collect();
    chunk(stream, asked, DONE, CHUNK_STATUS, &[&CONTEXT_ID.to_be_bytes(), &list])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use vmrescue_block::MemoryDevice;

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
        vec![Export { name: String::new(), disk, writer: None }]
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
        serve_client(&mut stream, &Service::new(&exports(), None)).unwrap();
        let said = &stream.1[18 + 10..];
        assert_eq!((&said[4..8], &said[16..20]), (&[0, 0, 0, 0][..], &[10, 11, 12, 13][..]));
        assert_eq!(said[20 + 7], EINVAL as u8, "beyond the end");
        assert_eq!(said[36 + 7], EPERM as u8, "writing zeros");
        assert_eq!(said.len(), 52);
    }

    #[test]
    fn writes_are_staged_and_flushed() {
        let writer = DiskMut::new(Arc::new(MemoryDevice::zeroed(64)));
        let export = Export { name: String::new(), disk: writer.as_disk(), writer: Some(writer.clone()) };
        let published = std::sync::atomic::AtomicU32::new(0);
        let publish = || {
            published.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        };
        let mut input = session(&[(COMMAND_WRITE, 10, 3)]);
        input.extend(b"abc");
        let rest = session(&[
            (COMMAND_FLUSH, 0, 0),
            (COMMAND_WRITE, 62, 0),
            (COMMAND_ZEROES, 11, 1),
            (COMMAND_READ, 9, 4),
            (COMMAND_DISCONNECT, 0, 0),
        ]);
        input.extend(&rest[20..]);
        let mut stream = Recorded(io::Cursor::new(input), Vec::new());
        serve_client(&mut stream, &Service::new(&[export], Some(&publish))).unwrap();
        assert_eq!(writer.as_disk().read_vec(9, 5).unwrap(), b"\0a\0c\0");
        assert!(stream.1.ends_with(b"\0a\0c"));
        assert_eq!(published.load(std::sync::atomic::Ordering::SeqCst), 2, "the flush, and the end");
    }

    proptest! {
        #[test]
        fn any_client_is_survived(noise in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..60) {
            let mut stream = Recorded(io::Cursor::new(noise), Vec::new());
            let _left = serve_client(&mut stream, &Service::new(&exports(), None));
            let mut input = session(&[(COMMAND_READ, u64::MAX, u32::MAX), (COMMAND_READ, 3, 9)]);
            input.truncate(input.len().saturating_sub(cut));
            let mut stream = Recorded(io::Cursor::new(input), Vec::new());
            let _left = serve_client(&mut stream, &Service::new(&exports(), None));
        }
    }
}
