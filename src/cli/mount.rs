//! `mount`: the volumes of a disk as directories of this machine.
//!
//! In the background the program starts itself once more as a session of its own, waits until that is mounted, and ends.

use super::progress::Bars;
use super::{Image, say, say_error};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};

/// `vmrescue mount`
#[derive(Debug, Args)]
pub(super) struct MountArgs {
    #[command(flatten)]
    image: Image,
    /// Empty directory to mount on
    dir: PathBuf,
    /// One volume as the mount itself, instead of all as directories: C:, esp:, #3:
    #[arg(long)]
    volume: Option<String>,
    /// Allow changes: staged, and published on fsync, at intervals and on unmounting; `undo` takes all of them back
    #[arg(long)]
    write: bool,
    /// With changes that are thrown away on unmounting; the image is not written
    #[arg(long, conflicts_with = "write")]
    discard: bool,
    /// Seconds between publishing what has changed; 0 only publishes on fsync, when much is staged, and on unmounting
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    interval: u64,
    /// Folder for journals and history, instead of beside the image
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// How named streams are reached: as attributes user.NAME, as file:NAME, both or not at all
    #[arg(long, value_enum, default_value_t = StreamsArg::Both)]
    streams: StreamsArg,
    /// The registry and the boot store as files below .registry; the data of values as text or as it is
    #[arg(long, value_enum, value_name = "DATA", num_args = 0..=1, default_missing_value = "text", require_equals = true)]
    registry: Option<RegistryArg>,
    /// List the files of NTFS itself ($MFT, $Bitmap, ...)
    #[arg(long)]
    system_files: bool,
    /// Owner of all files; the user who mounts when absent
    #[arg(long)]
    uid: Option<u32>,
    /// Group of all files
    #[arg(long)]
    gid: Option<u32>,
    /// Mode bits to take away from files and directories, octal; then everything else is set
    #[arg(long, value_parser = octal)]
    umask: Option<u16>,
    /// The same for files only; 133 when absent
    #[arg(long, value_parser = octal)]
    fmask: Option<u16>,
    /// The same for directories only; 022 when absent
    #[arg(long, value_parser = octal)]
    dmask: Option<u16>,
    /// Let every user look, as far as the mode bits go
    #[arg(long)]
    allow_other: bool,
    /// Threads that answer; more than one only pays when several programs read at the same time
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Return when it is mounted, and go on in the background
    #[arg(long)]
    background: bool,
    /// Set by `--background` for the process that stays
    #[arg(long, hide = true)]
    in_background: bool,
}

/// Named streams on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum StreamsArg {
    Xattr,
    Colon,
    Both,
    None,
}

/// Data of values on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RegistryArg {
    Text,
    Raw,
}

fn octal(text: &str) -> std::result::Result<u16, String> {
    u16::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "octal, 0 to 777".to_string())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn mount(_: &MountArgs) -> Result<u8> {
    Err(Error::unsupported(Layer::Host, "mounting is there on Linux only")
        .advice("`vmrescue serve IMAGE --nbd 127.0.0.1:10809` works here, and so do ls, get and put"))
}

#[cfg(target_os = "linux")]
pub(super) use linux::mount;

#[cfg(target_os = "linux")]
mod linux {
    use super::*;
    use crate::{CLEAN, ERROR, look, size, stop};
    use serde_json::{Value, json};
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};
    use vmrescue_fs::path::GuestPath;
    use vmrescue_fs::{FileSystemMut, open_mut};
    use vmrescue_mount::Shown;
    use vmrescue_mount::fuse::{self, Mounted, View};
    use vmrescue_mount::session::{Mode, Published, Session, Staged, session_word};
    use vmrescue_mount::tree::{Look, Streams, Tree};
    use vmrescue_repair::{Options, open_staged};
    use vmrescue_transaction::Record;
    use vmrescue_windows::Machine;

    /// How often the main thread looks at the clock and at the signals.
    const TICK: Duration = Duration::from_millis(100);
    /// How long it waits after a publish that failed, when nobody asks for one.
    const RETRY: Duration = Duration::from_secs(2);
    /// The longest that it waits at the end.
    const LONGEST_RETRY: Duration = Duration::from_secs(30);

    pub(crate) fn mount(args: &MountArgs) -> Result<u8> {
        if args.background {
            return begin_background();
        }
        if args.in_background {
            // The terminal's signals are for those who still have it.
            let _alone = rustix::process::setsid();
        }
        let stop = stop::on_request();
        let session = Arc::new(session(args)?);
        let complain: fuse::Complain = Arc::new(|e| say_error(&format!("mount: {e}")));
        let mounted = fuse::mount(&session, &args.dir, view(args), complain)?;
        let tree = session.tree();
        let volumes: Vec<Value> = tree
            .volumes()
            .into_iter()
            .map(|(directory, number, kind, label, writable)| {
                json!({"directory": directory, "number": number, "file_system": kind, "label": label, "writable": writable})
            })
            .collect();
        let ready = json!({
            "image": args.image.image, "dir": args.dir, "write": args.write, "discard": args.discard,
            "pid": std::process::id(), "volumes": volumes,
        });
        let how = match (args.write, args.discard) {
            (true, _) => "for writing",
            (_, true) => "for changes that will be thrown away",
            _ => "read-only",
        };
        let (image, dir) = (args.image.image.display(), args.dir.display());
        tell(
            args,
            "mounted",
            ready,
            &format!("{image} is mounted {how} on {dir}; fusermount3 -u or Ctrl-C ends it"),
        );
        serve(args, &session, mounted, stop)
    }

    /// Answers until the mount is taken away, from outside or by a signal; then publishes.
    fn serve(
        args: &MountArgs,
        session: &Session,
        mut mounted: Mounted,
        stop: &'static std::sync::atomic::AtomicBool,
    ) -> Result<u8> {
        let interval = (args.interval > 0).then(|| Duration::from_secs(args.interval));
        let mut last = Instant::now();
        let mut failed: Option<Instant> = None;
        let mut unmounting = false;
        while !mounted.is_over() {
            if stop.load(Ordering::SeqCst) && !unmounting {
                unmounting = true;
                if let Err(e) = mounted.unmount() {
                    // Whoever is still there keeps reading; new paths do not lead here any more.
                    let lazily = Command::new("fusermount3").args(["-u", "-z", "--"]).arg(&args.dir).output();
                    if lazily.is_ok_and(|output| output.status.success()) {
                        say_error(&format!("mount: {e}; it goes when the last of them ends"));
                    } else {
                        // What is staged must not go with an early end.
                        say_error(&format!("mount: {e}; close what is open there and stop once more"));
                        unmounting = false;
                        stop::once_more();
                    }
                }
            }
            let due = interval.is_some_and(|interval| last.elapsed() >= interval) && session.is_behind();
            let waits = failed.is_some_and(|at| at.elapsed() < RETRY);
            if (due || session.holds_much()) && !waits {
                // A failure was told when it happened; the next time tries again.
                let published = session.publish(&vmrescue_base::progress::Silent);
                failed = published.is_err().then(Instant::now);
                last = Instant::now();
            }
            std::thread::sleep(TICK);
        }
        let broken = mounted.join();
        for fault in session.settle_links() {
            let why = fault.error.map_or_else(|| format!("{:?}", fault.reason), |e| e.to_string());
            say_error(&format!("mount: a link to a directory stays a link to a file: {why}"));
        }
        let published = publish_last(args, session, stop);
        tell(args, "unmounted", json!({"dir": args.dir, "complete": published.is_ok()}), "unmounted");
        published?;
        broken.map(|()| CLEAN)
    }

    /// Publishes what is left. While the host cannot write it (its disk is full), it is kept and tried again, until it works or
    /// the user gives it up: nothing is lost that was not said.
    fn publish_last(
        args: &MountArgs,
        session: &Session,
        stop: &'static std::sync::atomic::AtomicBool,
    ) -> Result<()> {
        let lost = |e: Error| {
            let lost = size(session.staged_bytes());
            e.context(format!("the last changes could not be written and are lost ({lost} staged)"))
        };
        let mut wait = None;
        loop {
            let e = match session.publish(&Bars::new()) {
                Ok(_) => return session.finish(),
                // Only the host's failures pass by themselves.
                Err(e) if !matches!(e.kind(), ErrorKind::Io | ErrorKind::NoSpace | ErrorKind::NotFound) => {
                    return Err(lost(e));
                }
                Err(e) => e,
            };
            if wait.is_none() {
                stop::once_more();
                let staged = session.staged_bytes();
                let facts = json!({"dir": args.dir, "staged_bytes": staged, "error": e.to_string()});
                let text = format!(
                    "unmounted, but the last changes ({}) could not be written yet; they are kept in this process ({}) and tried \
                     again: make room, or give them up with Ctrl-C or SIGTERM",
                    size(staged),
                    std::process::id()
                );
                tell(args, "waiting", facts, &text);
            }
            let pause = wait.map_or(RETRY, |last: Duration| (last * 2).min(LONGEST_RETRY));
            wait = Some(pause);
            let since = Instant::now();
            while since.elapsed() < pause {
                if stop.load(Ordering::SeqCst) {
                    return Err(lost(e));
                }
                std::thread::sleep(TICK);
            }
        }
    }

    fn tell(args: &MountArgs, event: &str, mut facts: Value, text: &str) {
        // Standard output may be gone when the one who began this went away: nobody is left to be told.
        let _told = if args.image.json {
            if let Some(map) = facts.as_object_mut() {
                map.shift_insert(0, "schema".into(), json!("vmrescue.mount/1"));
                map.shift_insert(1, "event".into(), json!(event));
            }
            say(&facts.to_string())
        } else {
            say(text)
        };
        let _flushed = std::io::stdout().flush();
    }

    fn view(args: &MountArgs) -> View {
        let mode = |own: Option<u16>, default: u16| 0o777 & !own.or(args.umask).unwrap_or(default);
        View {
            uid: args.uid.unwrap_or_else(|| rustix::process::getuid().as_raw()),
            gid: args.gid.unwrap_or_else(|| rustix::process::getgid().as_raw()),
            file_mode: mode(args.fmask, 0o133),
            directory_mode: mode(args.dmask, 0o022),
            allow_other: args.allow_other,
            source: args.image.image.display().to_string(),
            threads: args.threads,
        }
    }

    fn chosen(machine: &Machine, volume: Option<&String>) -> Result<Option<usize>> {
        let Some(text) = volume else { return Ok(None) };
        let path = GuestPath::parse(&format!("{}\\", text.trim_end_matches(['\\', '/'])))?;
        let index = machine.volume_of(&path.volume)?;
        machine.file_system(index).map(|_| Some(index))
    }

    fn session(args: &MountArgs) -> Result<Session> {
        let look = |machine: &Machine| -> Result<Look> {
            Ok(Look {
                volume: chosen(machine, args.volume.as_ref())?,
                streams: match args.streams {
                    StreamsArg::Xattr => Streams::Xattr,
                    StreamsArg::Colon => Streams::Colon,
                    StreamsArg::Both => Streams::Both,
                    StreamsArg::None => Streams::None,
                },
                registry: args.registry.map(|data| match data {
                    RegistryArg::Text => Shown::Text,
                    RegistryArg::Raw => Shown::Raw,
                }),
                windows: args.image.windows,
                system_files: args.system_files,
            })
        };
        if !args.write && !args.discard {
            let (_, machine, _) = look::open(&args.image)?;
            let tree = Tree::new(&machine, &look(&machine)?, |_| Ok(None))?;
            return Session::new(tree, Mode::ReadOnly, None);
        }
        let command = crate::keys::without_secrets(crate::keys::words());
        let options = Options {
            state_dir: args.state_dir.clone(),
            parents: args.image.parent.clone(),
            command: command.clone(),
            keys: args.image.keys()?,
            dry_run: args.discard,
            ..Options::default()
        };
        let (transaction, container) = open_staged(&args.image.image, &options)?;
        let machine = Machine::open_with(container.disk.as_disk(), &options.keys)?;
        let disk = machine.writable(&container.disk)?;
        let writer = |index: usize| -> Result<Option<Box<dyn FileSystemMut>>> {
            let volume = &machine.volumes[index];
            if let Some(why) = volume.bitlocker.as_ref().and_then(|found| found.read_only.as_ref()) {
                say_error(&format!("partition {} is mounted read-only: {why}", volume.number));
                return Ok(None);
            }
            match open_mut(disk.window(volume.range.clone())?) {
                Ok(writer) => Ok(Some(writer)),
                // Not safe to write: the user has to say which other volume is meant, or look only.
                Err(e) if matches!(e.kind(), ErrorKind::Refused | ErrorKind::Busy) => {
                    Err(e.context(format!("partition {}", volume.number)))
                }
                Err(e) => {
                    say_error(&format!("partition {} is mounted read-only: {e}", volume.number));
                    Ok(None)
                }
            }
        };
        let look = look(&machine)?;
        let tree = Tree::new(&machine, &look, writer)?;
        if !tree.is_writable() {
            return Err(Error::unsupported(Layer::FileSystem, "no volume of this disk can be written"));
        }
        let ranges = machine.volumes.iter().map(|volume| (volume.number, volume.range.clone())).collect();
        let record = Record {
            title: format!("changes through a mount on {}", args.dir.display()),
            command,
            session: Some(session_word()),
            ..Record::default()
        };
        let staged = Box::new(Staged::new(transaction, disk.clone(), ranges, record));
        let mode = if args.discard { Mode::Discard(staged) } else { Mode::Publish(staged) };
        let json = args.image.json;
        let on_publish = Box::new(move |done: &Result<Published>| match done {
            Ok(done) if json => {
                let line = json!({
                    "schema": "vmrescue.mount/1", "event": "published", "operation": done.id,
                    "changes": done.changes, "staged_bytes": done.staged_bytes,
                });
                let _told = say(&line.to_string());
            }
            Ok(_) => {}
            Err(e) => {
                if json {
                    let line =
                        json!({"schema": "vmrescue.mount/1", "event": "failed", "error": e.to_string()});
                    let _told = say(&line.to_string());
                }
                say_error(&format!("mount: could not publish, everything stays staged: {e}"));
            }
        });
        Session::new(tree, mode, Some(on_publish))
    }

    /// Starts this program once more, without the option, and waits until it has mounted or failed.
    fn begin_background() -> Result<u8> {
        let failed = |e| Error::io("cannot be started once more", "vmrescue", e);
        let program = std::env::current_exe().map_err(failed)?;
        let words = std::env::args_os().skip(1).filter(|word| word != "--background");
        let mut child = Command::new(program)
            .args(words)
            .arg("--in-background")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let mut first = String::new();
        if let Some(out) = out {
            BufReader::new(out).read_line(&mut first).map_err(failed)?;
        }
        let is_error = first.trim_end() == "{";
        if !first.is_empty() && !is_error {
            say(first.trim_end())?;
            return Ok(CLEAN);
        }
        // It ended before it was mounted, and said why.
        if let Some(err) = err {
            for line in BufReader::new(err).lines().map_while(std::io::Result::ok) {
                say_error(&line);
            }
        }
        let status = child.wait().map_err(failed)?;
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0).unwrap_or(ERROR))
    }
}
