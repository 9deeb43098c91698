//! `portcullis health`: no shell and no curl in the image, so the binary asks itself.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use super::{Outcome, out};

const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address or URL of the admin listener
    #[arg(default_value = "127.0.0.1:8081")]
    address: String,
}

pub(super) fn run(args: &Args) -> Outcome {
    let address = args.address.strip_prefix("http://").unwrap_or(&args.address);
    let address = address.split('/').next().unwrap_or_default();
    let alive = ask(address);
    match &alive {
        Ok(status) => out::line(status)?,
        Err(error) => out::error(&format!("{}: {error}", args.address)),
    }
    Ok(if alive.is_ok_and(|status| status.contains(" 200 ")) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn ask(address: &str) -> std::io::Result<String> {
    let target = address.to_socket_addrs()?.next();
    let target = target.ok_or_else(|| std::io::Error::other("no such address"))?;
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer)?;
    let text = String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
