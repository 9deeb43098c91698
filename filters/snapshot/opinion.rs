//! The guard of second opinions, compiled.

use std::num::NonZeroU32;
use std::path::Path;

use secrecy::SecretString;

use super::{CompileError, certificates};
use crate::clock::Clock;
use crate::config::{Config, SecondOpinion, Secrets};
use crate::opinion::{Credential, Guard, Opinions, Settings};

const PATH: &str = "firewall.second_opinion";

/// The guard of the configuration, if there is one.
pub(super) fn compile(
    config: &Config,
    secrets: &Secrets,
    base: &Path,
    clock: &Clock,
) -> Result<Option<Opinions>, CompileError> {
    let Some(own) = &config.firewall.second_opinion else { return Ok(None) };
    let settings = settings(config, own, secrets, base)?;
    let opinions = Opinions::new(settings, clock.clone());
    opinions.map(Some).map_err(|error| CompileError::new("second opinion", error).at(PATH))
}

fn settings(
    config: &Config,
    own: &SecondOpinion,
    secrets: &Secrets,
    base: &Path,
) -> Result<Settings, CompileError> {
    let place = place(config, own, secrets, base)?;
    Ok(Settings {
        allow_plaintext: place.allow_plaintext,
        authorities: place.authorities,
        credential: place.credential,
        zone: own.zone,
        on_failure: own.on_failure,
        timeout: own.timeout,
        concurrent: own.concurrent as usize,
        calls_per_minute: own.calls_per_minute.and_then(NonZeroU32::new),
        max_bytes: usize::try_from(own.max_bytes).unwrap_or(usize::MAX),
        cache_entries: usize::try_from(own.cache.entries).unwrap_or(usize::MAX),
        cache_ttl: own.cache.ttl,
        breaker_failures: own.breaker.failures,
        breaker_pause: own.breaker.pause,
        ..Settings::new(place.url, guard(own)?)
    })
}

fn guard(own: &SecondOpinion) -> Result<Guard, CompileError> {
    let classifier = own.classifier.clone().map(Guard::Classifier);
    let llama = || own.llama_guard.clone().map(Guard::LlamaGuard);
    let guard = classifier.or_else(llama).or_else(|| own.chat.clone().map(Guard::Chat));
    guard.ok_or_else(|| CompileError::new("second opinion", "no guard").at(PATH))
}

/// Where the guard is, and how it is reached.
struct Place {
    url: String,
    allow_plaintext: bool,
    authorities: Vec<Vec<u8>>,
    credential: Option<Credential>,
}

fn place(
    config: &Config,
    own: &SecondOpinion,
    secrets: &Secrets,
    base: &Path,
) -> Result<Place, CompileError> {
    let Some(name) = &own.upstream else { return at_url(own, secrets, base) };
    let upstream = config.upstreams.get(name);
    let endpoint = upstream.and_then(|upstream| upstream.endpoints().next());
    let (Some(upstream), Some(endpoint)) = (upstream, endpoint) else {
        return Err(CompileError::new("no such upstream", name).at(PATH));
    };
    Ok(Place {
        url: format!("{endpoint}{}", own.path),
        // Prompts go to this address as it is.
        allow_plaintext: true,
        authorities: authorities(upstream.ca_file.as_deref(), base)?,
        credential: secrets.upstream_keys.get(name).map(Credential::bearer),
    })
}

fn at_url(own: &SecondOpinion, secrets: &Secrets, base: &Path) -> Result<Place, CompileError> {
    Ok(Place {
        url: own.url.clone().unwrap_or_default(),
        allow_plaintext: own.allow_plaintext,
        authorities: authorities(own.ca_file.as_deref(), base)?,
        credential: match &secrets.second_opinion_key {
            Some(key) => Some(credential(own, key)?),
            None => None,
        },
    })
}

fn credential(own: &SecondOpinion, key: &SecretString) -> Result<Credential, CompileError> {
    let Some(header) = &own.api_key_header else { return Ok(Credential::bearer(key)) };
    let name = http::HeaderName::try_from(header.as_str()).map_err(|error| {
        CompileError::new("second opinion", error).at(format!("{PATH}.api_key_header"))
    })?;
    Ok(Credential::header(name, key.clone()))
}

fn authorities(file: Option<&Path>, base: &Path) -> Result<Vec<Vec<u8>>, CompileError> {
    let Some(file) = file else { return Ok(Vec::new()) };
    certificates(&base.join(file))
        .map_err(|error| CompileError::new("second opinion", error).at(format!("{PATH}.ca_file")))
}
