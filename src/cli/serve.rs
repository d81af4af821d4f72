//! `serve`: the decoded disk for qemu, nbdkit's clients and libguestfs.

use super::{CLEAN, Image, look, say, say_error};
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::progress::Silent;
use vmrescue_block::DiskMut;
use vmrescue_fs::path::GuestPath;
use vmrescue_image as image;
use vmrescue_mount::nbd::{Export, Publish, Service};
use vmrescue_mount::session::session_word;
use vmrescue_mount::socket::{serve_local, serve_tcp};
use vmrescue_repair::{Options, open_staged};
use vmrescue_transaction::{Record, Transaction};
use vmrescue_windows::Machine;

/// `vmrescue serve`
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    image: Image,
    /// A local socket, or an address such as 127.0.0.1:10809
    #[arg(long, value_name = "SOCKET")]
    nbd: String,
    /// One volume instead of the disk: C:, esp:, #3:
    #[arg(long)]
    volume: Option<String>,
    /// End when the first client leaves
    #[arg(long)]
    once: bool,
    /// Allow changes: staged, and published when a client flushes or leaves; `undo` takes all of them back
    #[arg(long)]
    write: bool,
    /// Folder for journals and history, instead of beside the image
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// The whole disk under the empty name and `disk`, each volume under its number and its letter.
fn exports(args: &ServeArgs, machine: &Machine, writer: Option<&DiskMut>) -> Result<Vec<Export>> {
    let export = |name: String, range: std::ops::Range<u64>| -> Result<Export> {
        let writer = writer.map(|writer| writer.window(range.clone())).transpose()?;
        let disk = match &writer {
            Some(writer) => writer.as_disk(),
            None => machine.disk.window(range)?,
        };
        Ok(Export { name, disk, writer })
    };
    let whole = 0..machine.disk.len();
    let main = match &args.volume {
        None => whole.clone(),
        Some(name) => {
            let parsed = GuestPath::parse(&format!("{}\\", name.trim_end_matches(['\\', '/'])))?;
            machine.volumes[machine.volume_of(&parsed.volume)?].range.clone()
        }
    };
    let mut all = vec![export(String::new(), main)?, export("disk".into(), whole)?];
    for found in &machine.volumes {
        if let Some(letter) = found.letter {
            all.push(export(letter.to_string(), found.range.clone())?);
        }
        all.push(export(found.number.to_string(), found.range.clone())?);
    }
    Ok(all)
}

pub(super) fn serve(args: &ServeArgs) -> Result<u8> {
    if !args.write {
        let (_, machine, _) = look::open(&args.image)?;
        return listen(args, &exports(args, &machine, None)?, None);
    }
    let command = super::keys::without_secrets(super::keys::words());
    let options = Options {
        state_dir: args.state_dir.clone(),
        parents: args.image.parent.clone(),
        command: command.clone(),
        keys: args.image.keys()?,
        ..Options::default()
    };
    let (transaction, container): (Transaction, image::Container<DiskMut>) =
        open_staged(&args.image.image, &options)?;
    let machine = Machine::open_with(container.disk.as_disk(), &options.keys)?;
    let record = Record {
        title: format!("writes by NBD clients at {}", args.nbd),
        command,
        session: Some(session_word()),
        ..Record::default()
    };
    let transaction = Mutex::new(transaction);
    let disk = container.disk.clone();
    let publish = || -> Result<()> {
        disk.flush()?;
        let mut transaction = transaction.lock().unwrap_or_else(PoisonError::into_inner);
        // What clients write is theirs: only the container is ours to verify.
        let published =
            transaction.verify_so_far(|_| Ok(())).and_then(|part| part.publish(record.clone(), &Silent));
        if let Err(e) = &published {
            say_error(&format!("serve: could not publish, everything stays staged: {e}"));
        }
        published.map(drop)
    };
    listen(args, &exports(args, &machine, Some(&machine.writable(&container.disk)?))?, Some(&publish))?;
    // What a client wrote that was cut off in the middle.
    publish()?;
    transaction.lock().unwrap_or_else(PoisonError::into_inner).finish()?;
    Ok(CLEAN)
}

fn listen(args: &ServeArgs, exports: &[Export], publish: Option<&Publish<'_>>) -> Result<u8> {
    let nbd = &args.nbd;
    super::stop::doing(super::stop::Doing::Serving);
    let is_address = nbd.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let how = if publish.is_some() { "for writing" } else { "read-only" };
    let ready = || {
        let url = if is_address { format!("nbd://{nbd}/") } else { format!("nbd+unix:///?socket={nbd}") };
        let _told = say(&format!("serving {} {how} at {url}", args.image.image.display()));
    };
    if exports.is_empty() {
        return Err(Error::invalid(Layer::Cli, "nothing to serve"));
    }
    let service = Service::new(exports, publish);
    if is_address {
        serve_tcp(nbd, &service, args.once, &ready)
    } else {
        serve_local(Path::new(nbd), &service, args.once, &ready)
    }?;
    Ok(CLEAN)
}
