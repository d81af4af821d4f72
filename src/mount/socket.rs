//! Where clients come from: a local socket of Unix, or a TCP port of this machine.

use super::nbd::{Service, serve_client};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use vmrescue_base::error::{Error, Result};

/// Serves clients of a local socket at `path` until the process ends; with `once`, until the first one leaves.
///
/// # Errors
/// Of the socket; `Unsupported` on systems without local sockets.
#[cfg(unix)]
pub fn serve_local(path: &Path, service: &Service<'_>, once: bool, ready: &dyn Fn()) -> Result<()> {
    use std::os::unix::net::UnixListener;
    let listener = UnixListener::bind(path).map_err(|e| {
        Error::io("the socket cannot be made", path, e).advice("remove an old socket, or name another path")
    })?;
    ready();
    let served = serve_streams(listener.incoming(), service, once);
    let _removed = std::fs::remove_file(path);
    served
}

/// As above.
///
/// # Errors
/// Always: there are no local sockets here.
#[cfg(not(unix))]
pub fn serve_local(path: &Path, _: &Service<'_>, _: bool, _: &dyn Fn()) -> Result<()> {
    Err(Error::unsupported(vmrescue_base::Layer::Host, "this system has no local sockets")
        .in_file(path)
        .advice("use a port: --nbd 127.0.0.1:10809"))
}

/// Serves clients of a TCP address.
///
/// # Errors
/// Of the address.
pub fn serve_tcp(address: &str, service: &Service<'_>, once: bool, ready: &dyn Fn()) -> Result<()> {
    let listener =
        TcpListener::bind(address).map_err(|e| Error::io("the address cannot be listened on", address, e))?;
    ready();
    serve_streams(listener.incoming(), service, once)
}

fn serve_streams<S: Read + Write + Send>(
    streams: impl Iterator<Item = std::io::Result<S>>,
    service: &Service<'_>,
    once: bool,
) -> Result<()> {
    std::thread::scope(|scope| {
        for stream in streams {
            let mut stream = stream.map_err(|e| Error::io("a client cannot be taken", "socket", e))?;
            if once {
                // A client that breaks off is its own affair.
                let _left = serve_client(&mut stream, service);
                return Ok(());
            }
            scope.spawn(move || serve_client(&mut stream, service));
        }
        Ok(())
    })
}
