//! Reads the secrets that a config refers to.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::diagnostic::{Problems, Report};
use super::secret::{PasswordRef, SecretRef};
use super::strength::{self, Flaw, MAKE_KEY, flaw};
use super::types::Config;

/// The values of all secrets that a config refers to. `Debug` shows none of them.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// Ed25519 private key, PKCS#8 PEM.
    pub signing_key: Option<SecretString>,
    /// Key of the scoped tokens; 32 bytes or more.
    pub token_key: Option<SecretString>,
    /// Key of the digests of API keys; 32 bytes or more.
    pub key_pepper: Option<SecretString>,
    /// Credentials for upstreams, by the name of the upstream.
    pub upstream_keys: BTreeMap<String, SecretString>,
    /// Argon2id hashes (PHC strings), by the name of the user as it is in the config.
    pub password_hashes: BTreeMap<String, SecretString>,
}

impl Config {
    /// Reads every secret that the config refers to. Relative paths start at `base_dir`, the
    /// directory of the config file; `env` looks a variable up.
    ///
    /// # Errors
    /// All that is missing, empty, readable by others, malformed or weak, each where the config
    /// refers to it. No message holds a value.
    pub fn resolve_secrets(
        &self,
        base_dir: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Secrets, Problems> {
        let mut resolver = Resolver { base_dir, env, report: Report::new(&self.source) };
        let secrets = resolver.all(self);
        resolver.report.finish()?;
        Ok(secrets)
    }
}

struct Resolver<'a> {
    base_dir: &'a Path,
    env: &'a dyn Fn(&str) -> Option<String>,
    report: Report<'a>,
}

impl Resolver<'_> {
    fn all(&mut self, config: &Config) -> Secrets {
        let refs = &config.secrets;
        let mut secrets = Secrets {
            signing_key: self.optional(
                refs.signing_key.as_ref(),
                "signing_key",
                strength::signing_key,
            ),
            token_key: self.optional(refs.token_key.as_ref(), "token_key", strength::symmetric_key),
            key_pepper: self.optional(
                refs.key_pepper.as_ref(),
                "key_pepper",
                strength::symmetric_key,
            ),
            ..Secrets::default()
        };
        self.refuse_reuse(&secrets);
        for (name, upstream) in &config.upstreams {
            let Some(place) = &upstream.api_key else { continue };
            let found =
                self.one(place, &format!("upstreams.{name}.api_key"), strength::header_value);
            secrets.upstream_keys.extend(found.map(|value| (name.clone(), value)));
        }
        for (index, user) in config.auth.users.iter().enumerate() {
            let path = format!("auth.users[{index}].password_hash");
            let found = match &user.password_hash {
                PasswordRef::Place(place) => self.one(place, &path, strength::password_hash),
                PasswordRef::Hash(hash) => self.written(hash, &path),
            };
            secrets.password_hashes.extend(found.map(|value| (user.name.clone(), value)));
        }
        secrets
    }

    fn optional(
        &mut self,
        place: Option<&SecretRef>,
        key: &str,
        check: fn(&str) -> Result<(), Flaw>,
    ) -> Option<SecretString> {
        self.one(place?, &format!("secrets.{key}"), check)
    }

    /// A password hash that is written out in the config.
    fn written(&mut self, hash: &str, path: &str) -> Option<SecretString> {
        let checked = strength::password_hash(hash);
        checked
            .map(|()| SecretString::from(hash))
            .map_err(|(wrong, help)| self.report.add(path, format!("this hash {wrong}"), help))
            .ok()
    }

    fn one(
        &mut self,
        place: &SecretRef,
        path: &str,
        check: fn(&str) -> Result<(), Flaw>,
    ) -> Option<SecretString> {
        let found = self.read(place).and_then(|value| {
            check(value.expose_secret())?;
            Ok(value)
        });
        found.map_err(|(wrong, help)| self.report.add(path, format!("{place} {wrong}"), help)).ok()
    }

    fn read(&self, place: &SecretRef) -> Result<SecretString, Flaw> {
        let text = match place {
            SecretRef::File(path) => read_file(&self.base_dir.join(path))?,
            SecretRef::Env(name) => SecretString::from((self.env)(name).ok_or_else(|| {
                flaw("is not set", "set it for the process that runs the gateway")
            })?),
        };
        let value = text.expose_secret().trim_end_matches(['\r', '\n']);
        if value.trim().is_empty() {
            return Err(flaw("is empty", "put the secret into it"));
        }
        Ok(SecretString::from(value))
    }

    /// One key for two purposes lets a value made for the one be used for the other.
    fn refuse_reuse(&mut self, secrets: &Secrets) {
        if let (Some(key), Some(pepper)) = (&secrets.token_key, &secrets.key_pepper)
            && key.expose_secret() == pepper.expose_secret()
        {
            let message = "`key_pepper` is the same secret as `token_key`";
            self.report.add("secrets.key_pepper", message, MAKE_KEY);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
        -----END PRIVATE KEY-----\n";
    const KEY: &str = "q8Zt3vNw0LmX5cRb7YhJ2kPd9sGf4TaE6uVi1oCxWzBn";
    const PEPPER: &str = "7b1f9c3e5a8d2046f7e1b3c9d5a80246e8f1a3c5b7d90e2f4a6c8b0d1e3f5a79";
    const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$\
        MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI";

    const YAML: &str = "\
secrets:
  signing_key: {file: signing.pem}
  token_key: {file: token.key}
  key_pepper: {env: PEPPER}
upstreams: {up: {url: 'http://h', api_key: {env: UP_KEY}}}
auth: {users: [{name: Ann, role: user, password_hash: {env: ANN_HASH}}]}
";

    /// The secrets of `YAML`, with one file or variable replaced; no value removes it.
    fn resolve(changed: &str, value: Option<&str>, mode: u32) -> Result<Secrets, Problems> {
        let dir = tempfile::tempdir().unwrap();
        let given = |name: &str, usual: &'static str| {
            let value = if name == changed { value } else { Some(usual) };
            value.map(str::to_owned)
        };
        for (name, usual) in [("signing.pem", PEM), ("token.key", KEY)] {
            let path = dir.path().join(name);
            let Some(text) = given(name, usual) else { continue };
            std::fs::write(&path, text).unwrap();
            let mode = if name == changed { mode } else { 0o400 };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let env = |name: &str| match name {
            "PEPPER" => given(name, PEPPER),
            "UP_KEY" => given(name, "sk-upstream"),
            "ANN_HASH" => given(name, HASH),
            _ => None,
        };
        parse("f.yaml", YAML).unwrap().resolve_secrets(dir.path(), &env)
    }

    #[test]
    fn good_secrets_are_read_trimmed_and_not_shown() {
        let secrets = resolve("token.key", Some(&format!("{KEY}\r\n\n")), 0o600).unwrap();
        assert_eq!(secrets.token_key.as_ref().unwrap().expose_secret(), KEY);
        assert_eq!(secrets.signing_key.as_ref().unwrap().expose_secret(), PEM.trim_end());
        assert_eq!(secrets.key_pepper.as_ref().unwrap().expose_secret(), PEPPER);
        assert_eq!(secrets.upstream_keys["up"].expose_secret(), "sk-upstream");
        assert_eq!(secrets.password_hashes["Ann"].expose_secret(), HASH);
        let shown = format!("{secrets:?}");
        for value in [KEY, PEPPER, HASH, "sk-upstream", "MC4CAQ"] {
            assert!(!shown.contains(value), "{shown}");
        }
    }

    /// `LINE:COL`, and a part of what is said.
    fn check(changed: &str, value: Option<&str>, mode: u32, place: &str, words: &str) {
        let problems = resolve(changed, value, mode).expect_err(changed);
        let shown = problems.to_string();
        assert_eq!(problems.as_slice().len(), 1, "{shown}");
        assert!(shown.starts_with(&format!("f.yaml:{place}: ")), "{shown}");
        assert!(shown.contains(words), "{shown}");
        let leaks = value.is_some_and(|value| value.len() > 3 && shown.contains(value.trim()));
        assert!(!leaks, "{shown}");
    }

    #[test]
    fn bad_secrets_are_refused_where_they_are_referred_to() {
        let long = |part: &str| part.repeat(64);
        let sample = format!("{KEY}ChangeMe{KEY}");
        let rsa = PEM.replace("K2VwBCIEI", "ABCDEFGHI");
        for (changed, value, mode, place, words) in [
            ("token.key", None, 0o600, "3:3", "file `token.key` cannot be read"),
            ("token.key", Some(""), 0o600, "3:3", "is empty"),
            ("token.key", Some(" \n"), 0o600, "3:3", "is empty"),
            ("token.key", Some(KEY), 0o640, "3:3", "group-readable (mode 0640)"),
            ("token.key", Some(KEY), 0o604, "3:3", "world-readable (mode 0604)"),
            ("token.key", Some(KEY), 0o644, "3:3", "run: chmod 600 "),
            ("token.key", KEY.get(..31), 0o600, "3:3", "shorter than 32 bytes"),
            ("token.key", Some(&long("a")), 0o600, "3:3", "weak key"),
            ("token.key", Some(&long("abcdefgz9")), 0o600, "3:3", "openssl rand -base64 48"),
            ("token.key", Some(&sample), 0o600, "3:3", "from sample keys"),
            (
                "token.key",
                Some(&long(&long(&long(KEY)))),
                0o600,
                "3:3",
                "is larger than 65536 bytes",
            ),
            ("token.key", Some(PEPPER), 0o600, "4:3", "the same secret as `token_key`"),
            ("signing.pem", Some(KEY), 0o600, "2:3", "openssl genpkey -algorithm ed25519"),
            ("signing.pem", Some(&rsa), 0o600, "2:3", "is not an Ed25519 private key"),
            ("PEPPER", None, 0, "4:3", "environment variable `PEPPER` is not set"),
            ("PEPPER", Some("\n"), 0, "4:3", "is empty"),
            (
                "PEPPER",
                Some("your-256-bit-secret-your-256-bit-secret"),
                0,
                "4:3",
                "from sample keys",
            ),
            ("UP_KEY", Some("Bearer sk-1234"), 0, "5:35", "without `Bearer`"),
            ("ANN_HASH", Some("plain words"), 0, "6:40", "portcullis user hash"),
            ("ANN_HASH", Some("$2b$12$abcdefghijklmnopqrstuv"), 0, "6:40", "Argon2id"),
            ("ANN_HASH", Some("=19456,t=2,p=1"), 0, "6:40", "quote its `$`"),
        ] {
            check(changed, value, mode, place, words);
        }
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("token.key")).unwrap();
        let config = parse("f", "secrets: {token_key: {file: token.key}}").unwrap();
        let problems = config.resolve_secrets(dir.path(), &|_| None).expect_err("a directory");
        assert!(problems.to_string().contains("is not a regular file"), "{problems}");
    }
}
