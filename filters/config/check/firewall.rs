//! The firewall: bounds, policies that extend one another, assignments, exceptions.

use super::super::diagnostic::{Report, quote};
use super::super::firewall::{Exception, Policy, ResolveError, SecondOpinion};
use super::super::types::Config;
use super::{at_most, refers, timeout, unique, within};

/// Longest text that the model is told before everything else, in bytes.
const MAX_PREAMBLE: usize = 16 << 10;

/// Entries of one list.
const MAX_ENTRIES: usize = 1_000;

pub(super) fn check(config: &Config, report: &mut Report<'_>) {
    for (key, policy) in &config.firewall.policies {
        let path = format!("firewall.policies.{key}");
        super::name(report, &path, key);
        bounds(policy, &path, report);
        extends(config, key, &path, report);
    }
    assignments(config, report);
    exceptions(config, report);
    if let Some(opinion) = &config.firewall.second_opinion {
        second_opinion(config, opinion, report);
    }
}

/// What is one of two, or of three. The guard itself finds what is wrong with its bounds.
fn second_opinion(config: &Config, opinion: &SecondOpinion, report: &mut Report<'_>) {
    const PATH: &str = "firewall.second_opinion";
    let guards =
        [opinion.classifier.is_some(), opinion.llama_guard.is_some(), opinion.chat.is_some()];
    let one = guards.into_iter().filter(|given| *given).count() == 1;
    let help = "give one of `classifier`, `llama_guard` and `chat`";
    report.require(one, PATH, "a second opinion is of one kind of guard", help);
    let one = opinion.url.is_some() != opinion.upstream.is_some();
    report.require(one, PATH, "a guard is at one place", "give `url`, or `upstream`");
    if let Some(upstream) = &opinion.upstream {
        refers(report, &format!("{PATH}.upstream"), "upstream", upstream, &config.upstreams);
        let own = opinion.api_key.is_none() && opinion.ca_file.is_none();
        let help = "it is asked with the key and the CA of its upstream";
        report.require(own, PATH, "a guard at an upstream has no key or CA of its own", help);
    }
    let (low, high) = (opinion.zone.low, opinion.zone.high.unwrap_or(1.0));
    let holds = (0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high) && low < high;
    report.require(holds, &format!("{PATH}.zone"), "this zone is empty", "0 <= low < high <= 1");
}

fn bounds(policy: &Policy, path: &str, report: &mut Report<'_>) {
    let own = [
        ("threshold", policy.threshold),
        ("untrusted_threshold", policy.untrusted_threshold),
        ("toxicity_threshold", policy.toxicity_threshold),
    ];
    scores(report, path, own);
    for (role, terms) in &policy.roles {
        let name = serde_json::to_value(role).unwrap_or_default();
        let path = format!("{path}.roles.{}", name.as_str().unwrap_or_default());
        let own =
            [("threshold", terms.threshold), ("toxicity_threshold", terms.toxicity_threshold)];
        scores(report, &path, own);
    }
    if let Some(budget) = policy.time_budget {
        timeout(report, &format!("{path}.time_budget"), budget, 60);
    }
    if let Some(most) = policy.max_image_bytes {
        within(report, &format!("{path}.max_image_bytes"), most, &(0..=6 << 20));
    }
    let length = policy.preamble.as_ref().map_or(0, String::len);
    within(report, &format!("{path}.preamble"), length, &(0..=MAX_PREAMBLE));
}

fn scores<const N: usize>(
    report: &mut Report<'_>,
    path: &str,
    values: [(&'static str, Option<f64>); N],
) {
    for (key, value) in values {
        if let Some(value) = value {
            within(report, &format!("{path}.{key}"), value, &(0.0..=1.0));
        }
    }
}

fn extends(config: &Config, key: &str, path: &str, report: &mut Report<'_>) {
    let place = format!("{path}.extends");
    match config.firewall.resolve(key) {
        Ok(_) => {}
        Err(ResolveError::Unknown(name)) => {
            refers(report, &place, "policy", &name, &config.firewall.policies);
        }
        Err(ResolveError::Endless) => {
            let message = format!("the policy {} extends itself", quote(key));
            report.add(&place, message, "a chain of policies ends, after at most 16");
        }
    }
}

fn assignments(config: &Config, report: &mut Report<'_>) {
    let assignments = &config.firewall.assignments;
    at_most(report, "firewall.assignments", assignments.len(), MAX_ENTRIES);
    for (index, assignment) in assignments.iter().enumerate() {
        let path = format!("firewall.assignments[{index}]");
        let policies = &config.firewall.policies;
        refers(report, &format!("{path}.policy"), "policy", &assignment.policy, policies);
        let names_somebody = !assignment.keys.is_empty()
            || !assignment.users.is_empty()
            || !assignment.roles.is_empty();
        let help = "name keys, users or roles; a policy for all is that of the route";
        report.require(names_somebody, &path, "this assignment is of nobody", help);
    }
}

fn exceptions(config: &Config, report: &mut Report<'_>) {
    let exceptions = &config.firewall.exceptions;
    at_most(report, "firewall.exceptions", exceptions.len(), MAX_ENTRIES);
    for (index, exception) in exceptions.iter().enumerate() {
        one_exception(config, exception, &format!("firewall.exceptions[{index}]"), report);
    }
    let ids = exceptions.iter().enumerate().map(|(index, exception)| {
        let path = format!("firewall.exceptions[{index}].id");
        (path, exception.id.clone(), exception.id.clone())
    });
    unique(report, "exception", ids);
}

fn one_exception(config: &Config, exception: &Exception, path: &str, report: &mut Report<'_>) {
    super::name(report, &format!("{path}.id"), &exception.id);
    let help = "list the ids of the rules, as findings name them: rules: [email]";
    let names_rules = !exception.rules.is_empty();
    report.require(names_rules, &format!("{path}.rules"), "this exception is of no rule", help);
    let help = "say why, for those who read it later";
    let has_reason = !exception.reason.trim().is_empty();
    report.require(has_reason, &format!("{path}.reason"), "this exception has no reason", help);
    for (index, policy) in exception.policies.iter().enumerate() {
        let policies = &config.firewall.policies;
        refers(report, &format!("{path}.policies[{index}]"), "policy", policy, policies);
    }
}
