//! Subjects as operators name them: `user/alice`.

use std::fmt;

use crate::accounts::{AccountRole, KeyId, account_name};
use crate::authz::canonical;
use crate::quota::{Level, Subject};
use crate::snapshot::network;

/// The most bytes of what a service calls one of its users.
const MAX_USER: usize = 128;

/// The most bytes of the name of an upstream or a model.
const MAX_NAME: usize = 256;

/// A subject by its level and its id, in the one spelling under which it is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubjectName {
    level: Level,
    id: String,
}

impl SubjectName {
    /// Reads `user/NAME`, `key/ID`, `role/ROLE`, `model/NAME`, `upstream/NAME`, `address/IP` or
    /// `global`. `None` for what cannot be the name of any subject.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (level, id) = text.split_once('/').map_or((text, None), |(l, id)| (l, Some(id)));
        let level = Level::named(level)?;
        let id = match (level, id) {
            (Level::Global, None) => String::new(),
            (Level::Global, Some(_)) | (_, None) => return None,
            (Level::User, Some(id)) => user(id)?,
            (Level::Key, Some(id)) => id.parse::<KeyId>().ok()?.to_string(),
            (Level::Role, Some(id)) => id.parse::<AccountRole>().ok()?.to_string(),
            (Level::Model, Some(id)) => Some(id).filter(|id| is_short(id)).and_then(canonical)?,
            (Level::Upstream, Some(id)) => Some(id).filter(|id| is_word(id))?.to_owned(),
            (Level::Address, Some(id)) => address(id)?,
        };
        Some(Self { level, id })
    }

    /// The level.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// The id; nothing of the whole gateway.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The subject that meters count for.
    #[must_use]
    pub fn subject(&self) -> Subject {
        Subject::new(self.level, &self.id)
    }
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id.as_str() {
            "" => f.write_str(self.level.name()),
            id => write!(f, "{}/{id}", self.level.name()),
        }
    }
}

/// Who comes from elsewhere is called `ISSUER:NAME` or `SERVICE:ID`, and what services call their users
/// is theirs, letter by letter. The keys of the environment belong to `:environment`.
fn user(id: &str) -> Option<String> {
    match id.split_once(':') {
        None => account_name(id),
        Some(("", name)) => Some(format!(":{}", account_name(name)?)),
        Some((source, name)) => {
            let holds = is_word(name) && name.len() <= MAX_USER;
            holds.then_some(format!("{}:{name}", account_name(source)?))
        }
    }
}

/// An address, or the network of 64 bits that all of its customer's count on.
fn address(id: &str) -> Option<String> {
    match id.strip_suffix("/64") {
        Some(id) => Some(network(id.parse::<std::net::Ipv6Addr>().ok()?.into())),
        None => Some(network(id.parse().ok()?)),
    }
}

fn is_short(id: &str) -> bool {
    id.len() <= MAX_NAME
}

fn is_word(id: &str) -> bool {
    is_short(id) && !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_have_one_spelling() {
        for (text, expected) in [
            ("user/Alice", Some("user/alice")),
            ("user/corp:Ann", Some("user/corp:Ann")),
            ("user/Chat:a/b+c=", Some("user/chat:a/b+c=")),
            ("user/chat:a b", None),
            ("user/:environment", Some("user/:environment")),
            ("key/0123456789AB", Some("key/0123456789AB")),
            ("role/read_only", Some("role/read_only")),
            ("model/Llama3:latest", Some("model/llama3")),
            ("model/hf.co/org/name", Some("model/hf.co/org/name")),
            ("upstream/local", Some("upstream/local")),
            ("address/192.0.2.7", Some("address/192.0.2.7")),
            ("address/::ffff:192.0.2.7", Some("address/192.0.2.7")),
            ("address/2001:db8:1:2:3::4", Some("address/2001:db8:1:2::/64")),
            ("address/2001:db8:1:2::/64", Some("address/2001:db8:1:2::/64")),
            ("global", Some("global")),
            ("global/", None),
            ("global/x", None),
            ("user", None),
            ("user/", None),
            ("user/a b", None),
            ("User/alice", None),
            ("key/short", None),
            ("role/king", None),
            ("model/", None),
            ("model/../x", None),
            ("upstream/", None),
            ("upstream/a\nb", None),
            ("address/192.0.2.0/64", None),
            ("address/example.org", None),
            ("planet/earth", None),
            ("", None),
        ] {
            let parsed = SubjectName::parse(text).map(|name| name.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for text in ["user/alice", "global", "address/2001:db8:1:2::/64", "model/hf.co/org/name"] {
            let name = SubjectName::parse(text).unwrap();
            assert_eq!(SubjectName::parse(&name.to_string()), Some(name));
        }
    }

    #[test]
    fn a_name_leads_to_the_meter_of_requests() {
        for (text, subject) in [
            ("user/Alice", Subject::new(Level::User, "alice")),
            ("global", Subject::new(Level::Global, "")),
            ("address/2001:db8::1", Subject::new(Level::Address, "2001:db8:0:0::/64")),
        ] {
            assert_eq!(SubjectName::parse(text).unwrap().subject(), subject, "{text}");
        }
    }
}
