//! Standard output and error, and what is asked of people: passwords, codes, whether it is meant.
//!
//! Every question has its answer on standard input where that is a pipe, one a line. Questions go to
//! standard error, so that standard output has only the result.

use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Read, Write};

use secrecy::SecretString;

use super::Failure;

/// Bytes of an answer that are read.
const MAX_ANSWER: u64 = 64 << 10;

/// Prints a line.
///
/// # Errors
/// If standard output is closed.
pub(super) fn line(text: &dyn Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Prints a remark beside the result.
pub(super) fn note(text: &dyn Display) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Prints an error. There is nobody to tell if that fails.
pub(super) fn error(error: &dyn Display) {
    note(&format!("portcullis: {error}"));
}

/// Whether somebody can be asked.
pub(super) fn is_interactive() -> bool {
    io::stdin().is_terminal()
}

/// Reads a new password: twice from a terminal, without showing it, or the next line of a pipe.
///
/// # Errors
/// If it cannot be read, or the two differ.
pub(super) fn new_password() -> io::Result<SecretString> {
    if !is_interactive() {
        return answer().map(SecretString::from);
    }
    let first = rpassword::prompt_password("Password: ")?;
    let second = rpassword::prompt_password("Again: ")?;
    if first != second {
        return Err(io::Error::other("the two passwords differ"));
    }
    Ok(SecretString::from(first))
}

/// Asks for a line.
///
/// # Errors
/// If it cannot be read.
pub(super) fn ask(question: &str) -> io::Result<String> {
    if is_interactive() {
        let mut stderr = io::stderr().lock();
        write!(stderr, "{question}: ")?;
        stderr.flush()?;
    }
    answer()
}

/// Asks whether something is meant that cannot be undone.
///
/// # Errors
/// If it is not, or nobody can be asked.
pub(super) fn confirm(what: &str) -> Result<(), Failure> {
    if !is_interactive() {
        return Err(format!("{what}? Nobody can be asked here: say so with --yes").into());
    }
    match ask(&format!("{what}? [y/N]"))?.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err("nothing was done".into()),
    }
}

/// Everything on standard input, up to a bound that no token reaches.
///
/// # Errors
/// If it cannot be read or is not UTF-8.
pub(super) fn all_input() -> io::Result<SecretString> {
    let mut text = String::new();
    io::stdin().lock().take(MAX_ANSWER).read_to_string(&mut text)?;
    Ok(SecretString::from(text))
}

fn answer() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().lock().take(MAX_ANSWER).read_line(&mut text)?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}
