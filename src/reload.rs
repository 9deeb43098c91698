//! Reload on SIGHUP: a changed configuration is put in force, or refused as a whole.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use portcullis_filters::State;
use portcullis_filters::config::Config;
use tokio::signal::unix::{SignalKind, signal};

use crate::boot::{self, BootError, Loaded};
use crate::tls::Certificate;

/// Puts a changed configuration in force on SIGHUP.
pub(crate) struct Reload {
    path: PathBuf,
    state: Arc<State>,
    certificates: HashMap<String, Certificate>,
    /// What the process was started with.
    started: Config,
}

#[async_trait]
impl BackgroundService for Reload {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let Ok(mut hangups) = signal(SignalKind::hangup()) else {
            tracing::error!("SIGHUP cannot be watched: the configuration will not be reloaded");
            return;
        };
        loop {
            tokio::select! {
                received = hangups.recv() => if received.is_some() { self.reload().await } else { return },
                _ = shutdown.changed() => return,
            }
        }
    }
}

impl Reload {
    pub(crate) fn new(
        path: &Path,
        state: &Arc<State>,
        certificates: HashMap<String, Certificate>,
        started: Config,
    ) -> Self {
        Self { path: path.to_owned(), state: Arc::clone(state), certificates, started }
    }

    /// Everything is read and compiled before anything is swapped: a file with a mistake in it
    /// leaves the old configuration and certificates in force.
    async fn reload(&self) {
        let (path, clock) = (self.path.clone(), self.state.clock().clone());
        let loaded = tokio::task::spawn_blocking(move || boot::load(&path, &clock)).await;
        let result = match loaded {
            Ok(Ok(loaded)) => self.put_in_force(loaded).await,
            Ok(Err(error)) => Err(error),
            Err(error) => Err(BootError::Other(error.to_string())),
        };
        self.state.metrics().config_reloaded(result.is_ok());
        crate::api::record_reload(&self.state, result.as_ref().err());
        match result {
            Ok(()) => tracing::info!("configuration reloaded"),
            Err(error) => {
                tracing::error!("configuration not reloaded, the old one stays:\n{error}")
            }
        }
    }

    /// The store must take what is declared first: a gateway that cannot ask it stays as it is.
    async fn put_in_force(&self, loaded: Loaded) -> Result<(), BootError> {
        let (directory, declared) = (self.state.directory(), loaded.snapshot.declared());
        let now = self.state.clock().unix_secs();
        let declaring = directory.store().declare(&declared.users, &declared.keys, now);
        declaring.await.map_err(|error| BootError::Other(error.to_string()))?;
        self.swap(loaded);
        // Revocations by the new file are in force with it; a look that fails is repeated.
        drop(self.state.look().await);
        Ok(())
    }

    fn swap(&self, loaded: Loaded) {
        let late = needing_restart(&self.started, &loaded.config);
        if !late.is_empty() {
            tracing::warn!("these changes need a restart: {}", late.join(", "));
        }
        for (name, fresh) in &loaded.certificates {
            if let Some(served) = self.certificates.get(name) {
                served.replace(fresh);
            }
        }
        self.state.metrics().set_names(loaded.snapshot.names());
        self.state.swap(loaded.snapshot);
    }
}

/// The blocks that differ and that only a restart puts in force.
fn needing_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let changed = [
        ("listeners", old.listeners != new.listeners),
        ("admin", old.admin != new.admin),
        ("server.threads", old.server.threads != new.server.threads),
        ("counters", old.counters != new.counters),
        ("server.drain_timeout", old.server.drain_timeout != new.server.drain_timeout),
        ("server.body_memory", old.server.body_memory != new.server.body_memory),
        ("store", old.store != new.store),
        ("secrets.store_key", old.secrets.store_key != new.secrets.store_key),
        ("auth.login", old.auth.login != new.auth.login),
        ("auth.password_profile", old.auth.password_profile != new.auth.password_profile),
        ("audit", old.audit != new.audit),
        ("telemetry", old.telemetry != new.telemetry),
    ];
    changed.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reload_cannot_change_is_named() {
        let (old, mut new) = (Config::default(), Config::default());
        assert!(needing_restart(&old, &new).is_empty());
        new.caps.max_tokens = 1;
        new.server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        assert!(needing_restart(&old, &new).is_empty());
        new.server.threads = 7;
        new.listeners.clear();
        assert_eq!(needing_restart(&old, &new), ["listeners", "server.threads"]);
    }
}
