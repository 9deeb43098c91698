//! Rules for upstreams and routes.

use crate::config::diagnostic::{Report, quote};
use crate::config::explain::suggest;
use crate::config::types::Config;
use crate::config::upstream::{Match, Route, Upstream};
use crate::glob::Glob;

use super::{glob, is_pattern, refers, timeout, unique, within};

pub(super) fn check(config: &Config, report: &mut Report<'_>) {
    for (name, upstream) in &config.upstreams {
        let path = format!("upstreams.{name}");
        super::name(report, &path, name);
        places(upstream, &path, report);
        timeouts(upstream, &path, report);
        models(upstream, &path, report);
    }
    spellings(config, report);
    for (index, route) in config.routes.iter().enumerate() {
        one_route(config, route, &format!("routes[{index}]"), report);
    }
    shadows(&config.routes, report);
    if config.routes.is_empty() && config.upstreams.len() > 1 {
        let help = "add routes: they say which request goes to which upstream";
        report.add("routes", "there are several upstreams but no route", help);
    }
}

fn places(upstream: &Upstream, path: &str, report: &mut Report<'_>) {
    let one = upstream.url.is_some() == upstream.urls.is_empty();
    let help = "write either `url: http://127.0.0.1:11434` or `urls: [..]`";
    report.require(one, path, "an upstream has either `url` or `urls`", help);
    let unused = upstream.ca_file.is_some() && !upstream.endpoints().any(|place| place.tls);
    let message = "a CA is of use only for an https upstream";
    report.require(!unused, &format!("{path}.ca_file"), message, "remove it, or write https://");
}

fn timeouts(upstream: &Upstream, path: &str, report: &mut Report<'_>) {
    timeout(report, &format!("{path}.connect_timeout"), upstream.connect_timeout, 60);
    timeout(report, &format!("{path}.first_byte_timeout"), upstream.first_byte_timeout, 3600);
    timeout(report, &format!("{path}.write_timeout"), upstream.write_timeout, 3600);
    timeout(report, &format!("{path}.idle_timeout"), upstream.idle_timeout, 3600);
    let positive = upstream.gpus > 0.0 && upstream.gpus <= 1024.0;
    let message = format!("{} is out of range", upstream.gpus);
    report.require(positive, &format!("{path}.gpus"), message, "more than 0, at most 1024");
    let slots = upstream.concurrent.unwrap_or(1);
    within(report, &format!("{path}.concurrent"), slots, &(1..=1_000_000));
    within(report, &format!("{path}.queue.waiting"), upstream.queue.waiting, &(0..=100_000));
    within(report, &format!("{path}.queue.per_user"), upstream.queue.per_user, &(1..=100_000));
    timeout(report, &format!("{path}.queue.deadline"), upstream.queue.deadline, 600);
}

fn models(upstream: &Upstream, path: &str, report: &mut Report<'_>) {
    let params = ["max_tokens", "max_completion_tokens"];
    let param = upstream.max_tokens_param.as_str();
    let message = format!("unknown value {}", quote(param));
    let help = suggest(param, &params);
    report.require(params.contains(&param), &format!("{path}.max_tokens_param"), message, help);
    for (index, model) in upstream.models.iter().enumerate() {
        let holds = !model.contains('*') && is_pattern(model);
        let message = format!("{} is not the name of a model", quote(model));
        let help = "write its exact name, as the upstream lists it";
        report.require(holds, &format!("{path}.models[{index}]"), message, help);
    }
}

/// A model is looked up without regard to case, so it must lead to one spelling.
fn spellings(config: &Config, report: &mut Report<'_>) {
    let all = config.upstreams.iter().flat_map(|(name, upstream)| {
        upstream.models.iter().enumerate().map(move |(index, model)| {
            let path = format!("upstreams.{name}.models[{index}]");
            (path, model.to_lowercase(), model.clone())
        })
    });
    unique(report, "model", all);
}

fn one_route(config: &Config, route: &Route, path: &str, report: &mut Report<'_>) {
    refers(report, &format!("{path}.upstream"), "upstream", &route.upstream, &config.upstreams);
    let policies = &config.firewall.policies;
    refers(report, &format!("{path}.policy"), "policy", &route.policy, policies);
    let message = format!("{} is not the start of a path", quote(&route.matches.path));
    let rooted = route.matches.path.starts_with('/');
    report.require(rooted, &format!("{path}.match.path"), message, "it starts with `/`: /v1/");
    if let Some(model) = &route.matches.model {
        glob(report, &format!("{path}.match.model"), model);
    }
}

/// A route behind one that takes all its requests is a policy that never applies.
fn shadows(routes: &[Route], report: &mut Report<'_>) {
    for (later, route) in routes.iter().enumerate() {
        let before = routes.iter().take(later);
        let first =
            before.enumerate().find(|(_, earlier)| takes_all(&earlier.matches, &route.matches));
        if let Some((earlier, _)) = first {
            let line = report.line(&format!("routes[{earlier}]"));
            let message = format!("this route is never reached: the one in line {line} takes all");
            let help = "the first match wins: put the narrower route first";
            report.add(&format!("routes[{later}]"), message, help);
        }
    }
}

fn takes_all(earlier: &Match, later: &Match) -> bool {
    let models = match (&earlier.model, &later.model) {
        (None, _) => true,
        (Some(_), None) => false,
        // In the narrower pattern `*` is one more character, which only a `*` can match.
        (Some(wide), Some(narrow)) => Glob::new(wide).matches(&narrow.to_ascii_lowercase()),
    };
    models && later.path.starts_with(&earlier.path)
}
