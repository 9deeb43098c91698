//! Reads the secrets that a config refers to.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::access::Auth;
use super::counters::Counters;
use super::diagnostic::{Problems, Report};
use super::environment;
use super::keys::{Accepted, AcceptedKey, KeyKind};
use super::read::{Env, read};
use super::secret::{PasswordRef, SecretRef};
use super::store::{StorePlace, StoreUrl};
use super::strength::{self, Flaw, MAKE_KEY};
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
    /// Key of the sealed columns of the store; 32 bytes or more.
    pub store_key: Option<SecretString>,
    /// The key of the sealed columns before that one.
    pub store_key_previous: Option<SecretString>,
    /// Keys whose tokens are still accepted, in the order of the config, also those whose time is
    /// over.
    pub accepted: Vec<AcceptedKey>,
    /// Where the store is.
    pub store: StorePlace,
    /// The password of the counters' server.
    pub counters_password: Option<SecretString>,
    /// Whole API keys from the environment, well formed and with different ids; `API_KEY` first.
    pub environment_keys: Vec<SecretString>,
    /// Keys of services that sign, by the name of the service.
    pub service_secrets: BTreeMap<String, SecretString>,
    /// Credentials for upstreams, by the name of the upstream.
    pub upstream_keys: BTreeMap<String, SecretString>,
    /// What lets the gateway in at the guard of second opinions.
    pub second_opinion_key: Option<SecretString>,
    /// Argon2id hashes (PHC strings), by the name of the user as it is in the config.
    pub password_hashes: BTreeMap<String, SecretString>,
}

impl Config {
    /// Reads every secret that the config refers to. Relative paths start at `base_dir`, the
    /// directory of the config file; `env` looks a variable up.
    ///
    /// # Errors
    /// All that is missing, empty, readable by others, malformed or weak, each where the config
    /// refers to it; one secret for two purposes. No message holds a value.
    pub fn resolve_secrets(
        &self,
        base_dir: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Secrets, Problems> {
        let report = Report::new(&self.source);
        let mut resolver = Resolver { base_dir, env, report, keys: Vec::new() };
        let secrets = resolver.all(self);
        resolver.report.finish()?;
        Ok(secrets)
    }
}

struct Resolver<'a> {
    base_dir: &'a Path,
    env: Env<'a>,
    report: Report<'a>,
    /// The gateway's own keys so far, by what messages call them.
    keys: Vec<(String, SecretString)>,
}

impl Resolver<'_> {
    fn all(&mut self, config: &Config) -> Secrets {
        let refs = &config.secrets;
        let symmetric = strength::symmetric_key;
        Secrets {
            signing_key: self.own("signing_key", refs.signing_key.as_ref(), strength::signing_key),
            token_key: self.own("token_key", refs.token_key.as_ref(), symmetric),
            key_pepper: self.own("key_pepper", refs.key_pepper.as_ref(), symmetric),
            store_key: self.own("store_key", refs.store_key.as_ref(), symmetric),
            store_key_previous: self.own(
                "store_key_previous",
                refs.store_key_previous.as_ref(),
                symmetric,
            ),
            accepted: self.accepted(&refs.accept),
            store: self.store(&config.store.url),
            counters_password: self.counters(&config.counters),
            environment_keys: self.environment_keys(&config.auth),
            service_secrets: self.services(&config.auth),
            upstream_keys: self.upstreams(config),
            second_opinion_key: self.second_opinion(config),
            password_hashes: self.password_hashes(&config.auth),
        }
    }

    /// One of the keys under `secrets`.
    fn own(&mut self, name: &str, place: Option<&SecretRef>, check: Check) -> Option<SecretString> {
        self.key(place?, &format!("secrets.{name}"), name, check)
    }

    fn accepted(&mut self, accept: &[Accepted]) -> Vec<AcceptedKey> {
        let keys = accept.iter().enumerate().filter_map(|(index, accepted)| {
            let (kind, name, place) = accepted.key()?;
            let path = format!("secrets.accept[{index}].{name}");
            let check = match kind {
                KeyKind::Signing => strength::signing_key,
                KeyKind::Token => strength::symmetric_key,
            };
            let value = self.key(place, &path, &path, check)?;
            Some(AcceptedKey { kind, value, until: accepted.until })
        });
        keys.collect()
    }

    fn store(&mut self, url: &StoreUrl) -> StorePlace {
        let url = match url {
            StoreUrl::Plain(url) => Some(SecretString::from(url.as_str())),
            StoreUrl::Place(place) => self.one(place, "store.url", strength::store_url),
        };
        let place = url.and_then(|url| StorePlace::parse(url.expose_secret()).ok());
        place.unwrap_or_default()
    }

    fn counters(&mut self, counters: &Counters) -> Option<SecretString> {
        self.one(counters.password.as_ref()?, "counters.password", strength::anything)
    }

    fn environment_keys(&mut self, auth: &Auth) -> Vec<SecretString> {
        if auth.environment_keys.is_none() {
            return Vec::new();
        }
        let declared = auth.api_keys.iter().map(|key| key.id.clone()).collect();
        let add = |(wrong, help)| self.report.add("auth.environment_keys", wrong, help);
        environment::keys(self.env, declared).map_err(add).unwrap_or_default()
    }

    fn services(&mut self, auth: &Auth) -> BTreeMap<String, SecretString> {
        let secrets = auth.services.iter().enumerate().filter_map(|(index, service)| {
            let path = format!("auth.services[{index}].secret");
            let place = service.secret.as_ref()?;
            let value = self.key(place, &path, &path, strength::symmetric_key)?;
            Some((service.name.clone(), value))
        });
        secrets.collect()
    }

    fn upstreams(&mut self, config: &Config) -> BTreeMap<String, SecretString> {
        let keys = config.upstreams.iter().filter_map(|(name, upstream)| {
            let path = format!("upstreams.{name}.api_key");
            let value = self.one(upstream.api_key.as_ref()?, &path, strength::header_value)?;
            Some((name.clone(), value))
        });
        keys.collect()
    }

    fn second_opinion(&mut self, config: &Config) -> Option<SecretString> {
        let place = config.firewall.second_opinion.as_ref()?.api_key.as_ref()?;
        self.one(place, "firewall.second_opinion.api_key", strength::header_value)
    }

    fn password_hashes(&mut self, auth: &Auth) -> BTreeMap<String, SecretString> {
        let hashes = auth.users.iter().enumerate().filter_map(|(index, user)| {
            let path = format!("auth.users[{index}].password_hash");
            let found = match &user.password_hash {
                PasswordRef::Place(place) => self.one(place, &path, strength::password_hash),
                PasswordRef::Hash(hash) => self.written(hash, &path),
            };
            Some((user.name.clone(), found?))
        });
        hashes.collect()
    }

    /// A password hash that is written out in the config.
    fn written(&mut self, hash: &str, path: &str) -> Option<SecretString> {
        let checked = strength::password_hash(hash);
        checked
            .map(|()| SecretString::from(hash))
            .map_err(|(wrong, help)| self.report.add(path, format!("this hash {wrong}"), help))
            .ok()
    }

    /// A key that must be no other one: one key for two purposes lets a value made for the one be
    /// used for the other, and an old key that is the new one was never replaced.
    fn key(
        &mut self,
        place: &SecretRef,
        path: &str,
        name: &str,
        check: Check,
    ) -> Option<SecretString> {
        let value = self.one(place, path, check)?;
        let same = self.keys.iter().find(|(_, key)| key.expose_secret() == value.expose_secret());
        if let Some((other, _)) = same {
            let message = format!("`{name}` is the same secret as `{other}`");
            self.report.add(path, message, MAKE_KEY);
        }
        self.keys.push((name.to_owned(), value.clone()));
        Some(value)
    }

    fn one(&mut self, place: &SecretRef, path: &str, check: Check) -> Option<SecretString> {
        let found = read(place, self.base_dir, self.env).and_then(|value| {
            check(value.expose_secret())?;
            Ok(value)
        });
        found.map_err(|(wrong, help)| self.report.add(path, format!("{place} {wrong}"), help)).ok()
    }
}

/// Says what is wrong with a value.
type Check = fn(&str) -> Result<(), Flaw>;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::accounts::ApiKey;
    use crate::config::parse;

    const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
        -----END PRIVATE KEY-----\n";
    const OTHER_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";
    const KEY: &str = "q8Zt3vNw0LmX5cRb7YhJ2kPd9sGf4TaE6uVi1oCxWzBn";
    const PEPPER: &str = "7b1f9c3e5a8d2046f7e1b3c9d5a80246e8f1a3c5b7d90e2f4a6c8b0d1e3f5a79";
    const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$\
        MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI";

    const OTHERS: [&str; 4] = [
        "Xw4rT8mQz1Lk6NvB9sHc3JdYp7GfUa2ReVo5iWqCxMnE",
        "Rb2nMc7VxQ4tLz9Ks1WdHg6JfPy3TaU8eZoNi5rXqBvD",
        "Gk5vYt1CbN8mRz3XwPq7LsJd2HfTa9UeVo4iWxMnBrEc",
        "Zp3cVx8NmQ1bRt6LkWs9HdJf4GyTa7UeKo2iXwMnErDv",
    ];
    const STORE: &str = "postgres://gateway:tiger-lily@db/portcullis";

    const YAML: &str = "\
secrets:
  signing_key: {file: signing.pem}
  token_key: {file: token.key}
  key_pepper: {env: PEPPER}
  store_key: {env: STORE_KEY}
  store_key_previous: {env: STORE_KEY_OLD}
  accept:
    - {token_key: {env: TOKEN_KEY_OLD}, until: 2027-01-31T00:00:00Z}
    - {signing_key: {env: SIGNING_OLD}}
upstreams: {up: {url: 'http://h', api_key: {env: UP_KEY}}}
auth:
  users: [{name: Ann, role: user, password_hash: {env: ANN_HASH}}]
  environment_keys: {}
  services: [{name: chat, role: user, secret: {env: CHAT_KEY}}]
store: {url: {env: STORE_URL}}
";

    /// The secrets of `YAML`, with one file or variable replaced; no value removes it.
    fn resolve(changed: &str, value: Option<&str>, mode: u32) -> Result<Secrets, Problems> {
        let dir = tempfile::tempdir().unwrap();
        let given = |name: &str, usual: &str| {
            if name == changed { value.map(str::to_owned) } else { Some(usual.to_owned()) }
        };
        for (name, usual) in [("signing.pem", PEM), ("token.key", KEY)] {
            let path = dir.path().join(name);
            let Some(text) = given(name, usual) else { continue };
            std::fs::write(&path, text).unwrap();
            let mode = if name == changed { mode } else { 0o400 };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let drawn = ApiKey::generate().unwrap().reveal();
        let usual = [
            ("PEPPER", PEPPER),
            ("STORE_KEY", OTHERS[0]),
            ("STORE_KEY_OLD", OTHERS[1]),
            ("TOKEN_KEY_OLD", OTHERS[2]),
            ("SIGNING_OLD", OTHER_PEM),
            ("CHAT_KEY", OTHERS[3]),
            ("STORE_URL", STORE),
            ("API_KEY", drawn.expose_secret()),
            ("UP_KEY", "sk-upstream"),
            ("ANN_HASH", HASH),
        ];
        let env = |name: &str| {
            let usual = usual.iter().find(|(known, _)| *known == name);
            usual.and_then(|(_, usual)| given(name, usual))
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
        assert_eq!(secrets.store_key.as_ref().unwrap().expose_secret(), OTHERS[0]);
        assert_eq!(secrets.store_key_previous.as_ref().unwrap().expose_secret(), OTHERS[1]);
        assert_eq!(secrets.service_secrets["chat"].expose_secret(), OTHERS[3]);
        assert!(secrets.environment_keys[0].expose_secret().starts_with("sk_"));
        assert_eq!(secrets.store.url().expose_secret(), STORE);
        let accepted: Vec<_> = secrets.accepted.iter().map(|key| (key.kind, key.until)).collect();
        let until = "2027-01-31T00:00:00Z".parse().unwrap();
        assert_eq!(accepted, [(KeyKind::Token, Some(until)), (KeyKind::Signing, None)]);
        assert_eq!(secrets.accepted[0].value.expose_secret(), OTHERS[2]);
        let shown = format!("{secrets:?}");
        for value in [KEY, PEPPER, HASH, "sk-upstream", "MC4CAQ", "tiger-lily", "sk_", OTHERS[2]] {
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
            ("UP_KEY", Some("Bearer sk-1234"), 0, "10:35", "without `Bearer`"),
            ("STORE_KEY", Some("tiny-key"), 0, "5:3", "shorter than 32 bytes"),
            ("STORE_KEY", Some(KEY), 0, "5:3", "`store_key` is the same secret as `token_key`"),
            ("STORE_KEY_OLD", Some(OTHERS[0]), 0, "6:3", "the same secret as `store_key`"),
            ("TOKEN_KEY_OLD", None, 0, "8:8", "`TOKEN_KEY_OLD` is not set"),
            ("TOKEN_KEY_OLD", Some(KEY), 0, "8:8", "the same secret as `token_key`"),
            ("SIGNING_OLD", Some(KEY), 0, "9:8", "is not an Ed25519 private key"),
            ("SIGNING_OLD", Some(PEM), 0, "9:8", "the same secret as `signing_key`"),
            ("CHAT_KEY", Some(&long("ab")), 0, "14:39", "weak key"),
            (
                "CHAT_KEY",
                Some(OTHERS[2]),
                0,
                "14:39",
                "`auth.services[0].secret` is the same secret as `secrets.accept[0].token_key`",
            ),
            ("STORE_URL", None, 0, "15:9", "`STORE_URL` is not set"),
            ("STORE_URL", Some("postgres://u:tiger@h"), 0, "15:9", "names no database"),
            ("API_KEY", None, 0, "13:3", "`API_KEY` is not set"),
            ("API_KEY", Some("hunter2hunter2"), 0, "13:3", "portcullis key generate"),
            ("ANN_HASH", Some("plain words"), 0, "12:35", "portcullis user hash"),
            ("ANN_HASH", Some("$2b$12$abcdefghijklmnopqrstuv"), 0, "12:35", "Argon2id"),
            ("ANN_HASH", Some("=19456,t=2,p=1"), 0, "12:35", "quote its `$`"),
        ] {
            check(changed, value, mode, place, words);
        }
    }

    #[test]
    fn the_store_is_where_the_config_says() {
        for (yaml, expected) in [
            ("", "sqlite:portcullis.db"),
            ("store: {url: 'sqlite:///a b.db'}", "sqlite:///a b.db"),
            ("store: {url: {env: URL}}", "sqlite:c.db"),
        ] {
            let config = parse("f", yaml).unwrap();
            let env = |_: &str| Some("sqlite:c.db\n".to_owned());
            let secrets = config.resolve_secrets(Path::new("/conf"), &env).unwrap();
            assert_eq!(secrets.store.url().expose_secret(), expected, "{yaml}");
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
