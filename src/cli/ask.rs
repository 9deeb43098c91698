//! Asks a running gateway on its admin listener, which speaks plain HTTP on this machine.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::Failure;

const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read.
const MAX_ANSWER: u64 = 1 << 20;

/// What a path of a gateway such as `http://127.0.0.1:8081` answers, as JSON.
///
/// # Errors
/// If it is not on this machine: the key is not encrypted on its way. If it does not answer, or
/// refuses, with its words.
pub(super) fn get(gateway: &str, path: &str, key: &SecretString) -> Result<Value, Failure> {
    let place = gateway.strip_prefix("http://").unwrap_or(gateway).trim_end_matches('/');
    let address = resolve(place).map_err(|error| format!("{gateway}: {error}"))?;
    if !address.ip().is_loopback() {
        let help = "ask on the machine where it runs, or through a tunnel";
        return Err(format!("{gateway}: a key is sent to this machine only: {help}").into());
    }
    let key = key.expose_secret();
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("this is not an API key".into());
    }
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {place}\r\nAuthorization: Bearer {key}\r\n\
         Connection: close\r\n\r\n"
    );
    let answer = exchange(address, &head).map_err(|error| format!("{gateway}: {error}"))?;
    read(&answer).map_err(|error| format!("{gateway}: {error}").into())
}

fn resolve(place: &str) -> std::io::Result<SocketAddr> {
    let found = place.to_socket_addrs()?.next();
    found.ok_or_else(|| std::io::Error::other("no such address"))
}

fn exchange(address: SocketAddr, head: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

/// The JSON of an answer of 200, or what the error of another says.
fn read(answer: &str) -> Result<Value, String> {
    let strange = || "this is not the answer of a gateway".to_owned();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(strange)?;
    let status = head.split(' ').nth(1).ok_or_else(strange)?;
    let body: Value = serde_json::from_str(body).map_err(|_| strange())?;
    if status == "200" {
        return Ok(body);
    }
    let message = body.pointer("/error/message").and_then(Value::as_str);
    Err(message.map_or_else(strange, |message| format!("{status}: {message}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_read_and_refusals_told() {
        let strange = "this is not the answer of a gateway";
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{\"a\": 1}", Ok(json!({"a": 1}))),
            ("HTTP/1.1 403 No\r\n\r\n{\"error\": {\"message\": \"not you\"}}", Err("403: not you")),
            ("HTTP/1.1 200 OK\r\n\r\n<html>", Err(strange)),
            ("HTTP/1.1 500 X\r\n\r\n{}", Err(strange)),
            ("SSH-2.0", Err(strange)),
            ("", Err(strange)),
        ] {
            assert_eq!(read(answer), expected.map_err(str::to_owned), "{answer}");
        }
    }

    #[test]
    fn a_key_leaves_no_machine_and_breaks_no_head() {
        for (gateway, key, words) in [
            ("http://192.0.2.1:8081", "sk_a", "this machine only"),
            ("https://127.0.0.1:8081", "sk_a", "https://127.0.0.1:8081"),
            ("http://127.0.0.1:1", "sk_a\r\nX: y", "not an API key"),
            ("http://127.0.0.1:1", "sk_a", "http://127.0.0.1:1"),
        ] {
            let error = get(gateway, "/", &SecretString::from(key)).unwrap_err().to_string();
            assert!(error.contains(words), "{gateway}: {error}");
        }
    }
}
