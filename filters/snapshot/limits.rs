//! Quotas, compiled: from the keys of the configuration to limits, and which of them all callers
//! share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::access::account_role;
use crate::accounts::AccountRole;
use crate::config::{Config, Quota};
use crate::glob::Glob;
use crate::quota::{self, Ceiling, Level, Limits, Rate, Resource, Subject, Window};
use crate::standing::SubjectName;

/// Limits by the name of their quota.
pub(super) type Named = HashMap<String, Arc<Limits>>;

/// A meter on which requests count.
pub(crate) type Meter = (Level, Subject, Arc<Limits>);

pub(super) fn compile(config: &Config) -> Named {
    let quotas = config.quotas.iter();
    quotas.map(|(name, quota)| (name.clone(), Arc::new(limits(quota)))).collect()
}

/// The limits of a quota block.
pub(crate) fn limits(quota: &Quota) -> Limits {
    let ceiling = |(key, limit): (&str, Option<u64>)| {
        let (resource, window) = meter(key)?;
        let unit = if resource == Resource::GpuTime { 1000 } else { 1 };
        Some(Ceiling { resource, window, limit: limit?.saturating_mul(unit) })
    };
    Limits {
        pace: quota.requests_per_minute.and_then(|rate| Rate::new(rate, quota.burst)),
        concurrent: quota.concurrent,
        ceilings: quota.windows().filter_map(ceiling).collect(),
    }
}

/// What a key such as `tokens_per_day` limits.
fn meter(key: &str) -> Option<(Resource, Window)> {
    let of = |resource| Window::ALL.map(|window| (resource, window));
    let mut all = Resource::ALL.into_iter().flat_map(of);
    all.find(|(resource, window)| quota::Meter::Window(*resource, *window).name() == key)
}

/// The meters that several callers share. Those without a quota are there too, without limits: an
/// operator may set some while the gateway runs.
#[derive(Debug)]
pub(crate) struct Shared {
    global: Meter,
    roles: [Meter; 4],
    upstreams: HashMap<String, Meter>,
    address: Arc<Limits>,
    models: Vec<(Glob, Arc<Limits>)>,
}

/// By what the shared meters of a request are found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sharer<'a> {
    pub(crate) role: AccountRole,
    pub(crate) address: IpAddr,
    /// Canonical; empty for none.
    pub(crate) model: &'a str,
    /// Empty for none.
    pub(crate) upstream: &'a str,
}

impl Shared {
    pub(super) fn compile(config: &Config, quotas: &Named) -> Self {
        let shared = &config.shared_quotas;
        let named = |name: Option<&String>| {
            name.and_then(|name| quotas.get(name)).map(Arc::clone).unwrap_or_default()
        };
        let role = |role: AccountRole| {
            let mut roles = shared.roles.iter();
            let quota = roles.find(|(name, _)| account_role(**name) == role);
            metered(Level::Role, role.as_str(), named(quota.map(|(_, quota)| quota)))
        };
        let upstream = |name: &String| {
            let limits = named(shared.upstreams.get(name));
            (name.clone(), metered(Level::Upstream, name, limits))
        };
        let models = shared.models.iter();
        Self {
            global: metered(Level::Global, "", named(shared.global.as_ref())),
            roles: AccountRole::ALL.map(role),
            upstreams: config.upstreams.keys().map(upstream).collect(),
            address: named(shared.address.as_ref()),
            models: models.map(|m| (Glob::new(&m.model), named(Some(&m.quota)))).collect(),
        }
    }

    /// The shared meters on which a request counts. Of those without a quota only if an operator has
    /// `changed` limits, which may be theirs: to name them takes a hash each.
    pub(crate) fn meters(&self, of: Sharer<'_>, changed: bool) -> Vec<Meter> {
        let counts = |limits: &Arc<Limits>| changed || !limits.is_empty();
        let known = [Some(self.role(of.role)), Some(&self.global), self.upstreams.get(of.upstream)];
        let known = known.into_iter().flatten().filter(|(.., limits)| counts(limits)).cloned();
        let address = Some(Arc::clone(&self.address)).filter(counts);
        let address = address.map(|limits| metered(Level::Address, &network(of.address), limits));
        let model = (!of.model.is_empty()).then(|| self.model(of.model)).filter(counts);
        let model = model.map(|limits| metered(Level::Model, of.model, limits));
        known.chain(address).chain(model).collect()
    }

    /// The limits of a subject that several callers share; `None` for an upstream that is not there,
    /// and for what is one caller's own.
    pub(super) fn limits(&self, name: &SubjectName) -> Option<Arc<Limits>> {
        let (_, _, limits) = match name.level() {
            Level::User | Level::Key => return None,
            Level::Address => return Some(Arc::clone(&self.address)),
            Level::Role => self.role(name.id().parse().ok()?).clone(),
            Level::Model => return Some(self.model(name.id())),
            Level::Upstream => self.upstreams.get(name.id())?.clone(),
            Level::Global => self.global.clone(),
        };
        Some(limits)
    }

    const fn role(&self, role: AccountRole) -> &Meter {
        let [read_only, user, admin, owner] = &self.roles;
        match role {
            AccountRole::ReadOnly => read_only,
            AccountRole::User => user,
            AccountRole::Admin => admin,
            AccountRole::Owner => owner,
        }
    }

    fn model(&self, name: &str) -> Arc<Limits> {
        let limits = self.models.iter().find(|(glob, _)| glob.matches(name));
        limits.map(|(_, limits)| Arc::clone(limits)).unwrap_or_default()
    }
}

fn metered(level: Level, id: &str, limits: Arc<Limits>) -> Meter {
    (level, Subject::new(level, id), limits)
}

/// The part of an address that one customer of a provider has: of IPv6 a network of 64 bits
/// (RFC 6177 section 2), or else an attacker would have as many meters as he likes.
pub(crate) fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn compiled(yaml: &str) -> (Named, Shared) {
        let config = config::parse("test", yaml).unwrap();
        let named = compile(&config);
        let shared = Shared::compile(&config, &named);
        (named, shared)
    }

    #[test]
    fn every_key_of_a_quota_becomes_its_limit() {
        let (named, _) = compiled(
            "quotas: {big: {requests_per_minute: 60, burst: 5, concurrent: 2, \
             requests_per_day: 7, tokens_per_month: 8, prompt_tokens_per_hour: 9, \
             completion_tokens_per_minute: 10, gpu_seconds_per_day: 11}}",
        );
        let ceiling = |resource, window, limit| Ceiling { resource, window, limit };
        let expected = [
            ceiling(Resource::Requests, Window::Day, 7),
            ceiling(Resource::Tokens, Window::Month, 8),
            ceiling(Resource::PromptTokens, Window::Hour, 9),
            ceiling(Resource::CompletionTokens, Window::Minute, 10),
            ceiling(Resource::GpuTime, Window::Day, 11_000),
        ];
        let big = &named["big"];
        assert_eq!((big.pace, big.concurrent), (Rate::new(60, 5), Some(2)));
        assert_eq!(big.ceilings, expected);
        for (key, _) in Quota::default().windows() {
            assert!(meter(key).is_some(), "{key}");
        }
    }

    #[test]
    fn a_request_counts_on_what_it_shares() {
        let (_, shared) = compiled(
            "upstreams: {up: {url: 'http://127.0.0.1:1'}}\n\
             quotas: {q: {concurrent: 1}}\n\
             shared_quotas: {global: q, address: q, roles: {user: q}, upstreams: {up: q}, \
             models: [{model: 'llama*', quota: q}]}",
        );
        let levels = |role, model, upstream| {
            let sharer = Sharer { role, address: [10, 0, 0, 1].into(), model, upstream };
            let limited = shared.meters(sharer, false);
            limited.into_iter().map(|(level, ..)| level).collect::<Vec<_>>()
        };
        use Level::{Address, Global, Model, Role, Upstream};
        let user = AccountRole::User;
        assert_eq!(levels(user, "llama3", "up"), [Role, Global, Upstream, Address, Model]);
        assert_eq!(levels(AccountRole::Admin, "phi", "other"), [Global, Address]);
        assert_eq!(levels(user, "", ""), [Role, Global, Address]);
    }

    #[test]
    fn what_has_no_quota_is_metered_once_operators_change_limits() {
        let (_, shared) = compiled("upstreams: {up: {url: 'http://127.0.0.1:1'}}");
        let address = [10, 0, 0, 1].into();
        let sharer = Sharer { role: AccountRole::User, address, model: "phi", upstream: "up" };
        assert!(shared.meters(sharer, false).is_empty());
        let mut subjects: Vec<Subject> =
            shared.meters(sharer, true).into_iter().map(|(_, subject, _)| subject).collect();
        subjects.sort_unstable();
        let names = ["role/user", "address/10.0.0.1", "global", "model/phi", "upstream/up"];
        let mut expected = names.map(|name| SubjectName::parse(name).unwrap().subject());
        expected.sort_unstable();
        assert_eq!(subjects, expected);
        for (name, known) in [
            ("global", true),
            ("model/any", true),
            ("upstream/up", true),
            ("upstream/down", false),
            ("user/ada", false),
        ] {
            let name = SubjectName::parse(name).unwrap();
            assert_eq!(shared.limits(&name).is_some(), known, "{name}");
        }
    }

    #[test]
    fn addresses_count_by_the_network_of_their_customer() {
        for (address, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(network(address.parse().unwrap()), expected);
        }
    }
}
