//! Standard output and error, and passwords from the terminal or a pipe.

use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Write};

use secrecy::SecretString;

/// Prints a line.
///
/// # Errors
/// If standard output is closed.
pub(super) fn line(text: &dyn Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Prints an error. There is nobody to tell if that fails.
pub(super) fn error(error: &dyn Display) {
    drop(writeln!(io::stderr().lock(), "portcullis: {error}"));
}

/// Reads a new password: twice from a terminal, without showing it, or the first line of a pipe.
///
/// # Errors
/// If it cannot be read, or the two differ.
pub(super) fn new_password() -> io::Result<SecretString> {
    if !io::stdin().is_terminal() {
        let mut text = String::new();
        io::stdin().lock().read_line(&mut text)?;
        return Ok(SecretString::from(text.trim_end_matches(['\r', '\n'])));
    }
    let first = rpassword::prompt_password("Password: ")?;
    let second = rpassword::prompt_password("Again: ")?;
    if first != second {
        return Err(io::Error::other("the two passwords differ"));
    }
    Ok(SecretString::from(first))
}
