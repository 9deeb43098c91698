//! Reads one secret from the place that a config names.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::secret::SecretRef;
use super::strength::{Flaw, flaw};

/// Looks an environment variable up.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The secret, without the ends of lines behind it. Relative paths start at `base_dir`.
///
/// # Errors
/// A file or variable that is not there, empty, too large, or readable by others.
pub(super) fn read(place: &SecretRef, base_dir: &Path, env: Env<'_>) -> Result<SecretString, Flaw> {
    let text =
        match place {
            SecretRef::File(path) => read_file(&base_dir.join(path))?,
            SecretRef::Env(name) => SecretString::from(env(name).ok_or_else(|| {
                flaw("is not set", "set it for the process that runs the gateway")
            })?),
        };
    let value = text.expose_secret().trim_end_matches(['\r', '\n']);
    if value.trim().is_empty() {
        return Err(flaw("is empty", "put the secret into it"));
    }
    Ok(SecretString::from(value))
}

/// The largest secret, in bytes.
const MAX_BYTES: u64 = 64 << 10;

fn read_file(path: &Path) -> Result<SecretString, Flaw> {
    let cannot = |why: std::io::Error| {
        flaw(format!("cannot be read: {why}"), format!("looked for {}", path.display()))
    };
    // Before it is opened: opening a pipe would wait for a writer.
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() {
        return Err(flaw("is not a regular file", format!("looked at {}", path.display())));
    }
    let file = File::open(path).map_err(cannot)?;
    private(&file.metadata().map_err(cannot)?, path)?;
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(cannot)?;
    if u64::try_from(text.len()).map_or(true, |bytes| bytes > MAX_BYTES) {
        return Err(flaw(format!("is larger than {MAX_BYTES} bytes"), "is this the right file?"));
    }
    Ok(SecretString::from(text))
}

fn private(metadata: &std::fs::Metadata, path: &Path) -> Result<(), Flaw> {
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let who = if mode & 0o007 == 0 { "group" } else { "world" };
    let wrong = format!("is {who}-readable (mode {mode:04o})");
    Err(flaw(wrong, format!("run: chmod 600 {}", path.display())))
}
