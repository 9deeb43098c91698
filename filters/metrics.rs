//! What the gateway counts, for Prometheus.
//!
//! Names and labels are public and stay. Labels hold only values from the code or the
//! configuration: endpoints and reasons are `&'static str`, models and upstreams go through
//! [`KnownNames`]; no user, key or text of a request can become a label (API4:2023, cardinality).
//!
//! Most numbers come from the audit record of the request ([`Metrics::observe`]), so metrics and
//! audit trail cannot tell different stories.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    CounterVec, Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::audit::{AuditCounters, AuditRecord, Operation, Status};
use crate::opinion::{Given, Source};
use crate::usage::Usage;

/// The label of a model or upstream that the configuration does not name.
const OTHER: &str = "other";

/// The label of a reason or upstream where there is none.
const NONE: &str = "none";

/// Seconds, from 5 µs: the rooms before the upstream take microseconds.
const OVERHEAD: &[f64] =
    &[5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2, 0.1];

/// Seconds, from a refusal to a long answer.
const DURATION: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    120.0, 300.0,
];

/// Seconds, from a warm small model to one that has to be loaded first.
const TTFT: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

/// The names that a label may have: those in the configuration. Anything else is `other`.
#[derive(Clone, Debug, Default)]
pub struct KnownNames(HashSet<Box<str>>);

impl KnownNames {
    /// The label for a name.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.0.get(name).map_or(OTHER, |known| known)
    }
}

impl<N: Into<Box<str>>> FromIterator<N> for KnownNames {
    fn from_iter<I: IntoIterator<Item = N>>(names: I) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }
}

/// The configured names, which a reload replaces.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Canonical model names.
    pub models: KnownNames,
    /// Names of upstreams.
    pub upstreams: KnownNames,
}

/// The rooms of the journey whose time is measured, and their sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the modules, which say what they do")]
pub enum Room {
    Edge,
    Surface,
    Authn,
    Body,
    Prompt,
    Authz,
    Quota,
    Scan,
    Total,
}

/// The labels of [`Room`], in its order.
const ROOMS: [&str; 9] =
    ["edge", "surface", "authn", "body", "prompt", "authz", "quota", "scan", "total"];

/// Every metric of the gateway, in a registry of their own.
pub struct Metrics {
    registry: Registry,
    names: ArcSwap<Names>,
    requests: Requests,
    state: State,
}

/// What requests add to.
struct Requests {
    total: IntCounterVec,
    duration: Histogram,
    /// By [`Room`], resolved beforehand: they are observed many times a request.
    overhead: Vec<Histogram>,
    ttft: Histogram,
    queue: HistogramVec,
    tokens: IntCounterVec,
    gpu_seconds: CounterVec,
    findings: IntCounterVec,
    opinions: IntCounterVec,
    opinion: Histogram,
    auth_failures: IntCounterVec,
    quota_refusals: IntCounterVec,
}

/// What the gateway is doing, and how it fares.
struct State {
    reservations_open: IntGauge,
    queue_depth: IntGaugeVec,
    streams_open: IntGauge,
    upstream_up: IntGaugeVec,
    degraded: IntGaugeVec,
    connections_refused: IntCounter,
    requests_unparsed: IntCounter,
    panics: IntCounter,
    config_reloads: IntCounterVec,
}

impl Metrics {
    /// All metrics at zero. `audit` is what the audit sink counts.
    ///
    /// # Errors
    /// If two metrics have one name, which is a defect.
    pub fn new(names: Names, audit: &AuditCounters) -> Result<Self, Error> {
        let registry = Registry::new_custom(Some("portcullis".to_owned()), None)?;
        register_audit(&registry, audit)?;
        Ok(Self {
            requests: Requests::new(&registry)?,
            state: State::new(&registry)?,
            names: ArcSwap::from_pointee(names),
            registry,
        })
    }

    /// Replaces the configured names, after a reload.
    pub fn set_names(&self, names: Names) {
        self.names.store(names.into());
    }

    /// Counts a request, once, from its audit record. `endpoint` is the id of the operation,
    /// `status` the HTTP status that was sent.
    pub fn observe(&self, record: &AuditRecord, endpoint: &'static str, status: u16) {
        let reason = record.reason.unwrap_or(NONE);
        self.requests.total.with_label_values(&[endpoint, status_label(status), reason]).inc();
        if let Some(ms) = record.latency_ms {
            self.requests.duration.observe(seconds(Duration::from_millis(ms)));
        }
        if let Some(ms) = record.ttft_ms {
            self.requests.ttft.observe(seconds(Duration::from_millis(ms)));
        }
        if let Some(us) = record.overhead_us {
            self.spent(Room::Total, Duration::from_micros(us));
        }
        if let Some(usage) = &record.usage {
            self.used(record, usage);
        }
        for found in &record.findings {
            self.requests
                .findings
                .with_label_values(&[found.kind, found.action, found.direction])
                .inc();
        }
        if is_auth_failure(record) {
            self.requests.auth_failures.with_label_values(&[reason]).inc();
        }
    }

    fn used(&self, record: &AuditRecord, usage: &Usage) {
        let names = self.names.load();
        let model = record.model.as_ref().map_or(OTHER, |m| names.models.label(m.as_str()));
        for (direction, tokens) in
            [("input", usage.prompt_tokens), ("output", usage.completion_tokens)]
        {
            self.requests.tokens.with_label_values(&[direction, model]).inc_by(tokens);
        }
        if usage.gpu_seconds.is_finite() && usage.gpu_seconds > 0.0 {
            let upstream =
                record.upstream.as_ref().map_or(NONE, |u| names.upstreams.label(u.as_str()));
            self.requests
                .gpu_seconds
                .with_label_values(&[model, upstream])
                .inc_by(usage.gpu_seconds);
        }
    }

    /// Adds the time that a request spent in a room.
    pub fn spent(&self, room: Room, time: Duration) {
        if let Some(histogram) = self.requests.overhead.get(room as usize) {
            histogram.observe(seconds(time));
        }
    }

    /// Counts a second opinion; how long it took, if it is the guard's and not a remembered one.
    pub fn opined(&self, given: &Given) {
        let labels = [given.opinion.as_str(), given.source.as_str()];
        self.requests.opinions.with_label_values(&labels).inc();
        if given.source == Source::Guard {
            self.requests.opinion.observe(seconds(given.took));
        }
    }

    /// Counts a refusal by a meter.
    pub fn quota_refused(&self, meter: &'static str) {
        self.requests.quota_refusals.with_label_values(&[meter]).inc();
    }

    /// Counts a reservation as open for as long as the guard lives.
    pub fn reservation_open(&self) -> GaugeGuard {
        GaugeGuard::new(&self.state.reservations_open)
    }

    /// Counts a stream as open for as long as the guard lives.
    pub fn stream_open(&self) -> GaugeGuard {
        GaugeGuard::new(&self.state.streams_open)
    }

    /// Observes how long a request waited for its upstream.
    pub fn queued(&self, upstream: &str, waited: Duration) {
        let names = self.names.load();
        let label = names.upstreams.label(upstream);
        self.requests.queue.with_label_values(&[label]).observe(waited.as_secs_f64());
    }

    /// Says how many requests wait for an upstream.
    pub fn set_queue_depth(&self, upstream: &str, waiting: usize) {
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.set_of_upstream(&self.state.queue_depth, upstream, waiting);
    }

    /// Says whether an upstream can be reached.
    pub fn set_upstream_up(&self, upstream: &str, up: bool) {
        self.set_of_upstream(&self.state.upstream_up, upstream, up.into());
    }

    fn set_of_upstream(&self, gauges: &IntGaugeVec, upstream: &str, value: i64) {
        let names = self.names.load();
        gauges.with_label_values(&[names.upstreams.label(upstream)]).set(value);
    }

    /// Says whether a component works by its failure policy instead of as it should.
    pub fn set_degraded(&self, component: &'static str, degraded: bool) {
        self.state.degraded.with_label_values(&[component]).set(degraded.into());
    }

    /// Counts a connection that was closed because too many are open.
    pub fn connection_refused(&self) {
        self.state.connections_refused.inc();
    }

    /// Counts a connection that ended before a request on it was understood.
    pub fn request_unparsed(&self) {
        self.state.requests_unparsed.inc();
    }

    /// Counts a panic that was caught.
    pub fn panicked(&self) {
        self.state.panics.inc();
    }

    /// Counts a reload of the configuration.
    pub fn config_reloaded(&self, success: bool) {
        let result = if success { "success" } else { "failure" };
        self.state.config_reloads.with_label_values(&[result]).inc();
    }

    /// All metrics in the Prometheus text format 0.0.4, whose content type is
    /// [`prometheus::TEXT_FORMAT`].
    #[must_use]
    pub fn encode(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| format!("# {}\n", error.to_string().replace('\n', " ")))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("names", &self.names).finish_non_exhaustive()
    }
}

/// Counts one in a gauge until it is dropped.
#[derive(Debug)]
#[must_use = "the gauge goes down again when the guard is dropped"]
pub struct GaugeGuard(IntGauge);

impl GaugeGuard {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Requests {
    fn new(r: &Registry) -> Result<Self, Error> {
        let by_end = &["endpoint", "status", "reason"];
        let by_kind = &["kind", "action", "direction"];
        let from_head = "From request head to last byte of answer.";
        let to_first = "From request head to first byte of answer.";
        let tokens = "Tokens settled, of input and output.";
        let of_opinion = &["outcome", "source"];
        let waited = "Wait for the guard of second opinions.";
        Ok(Self {
            total: counters(r, "requests_total", by_end, "Requests by how they ended.")?,
            duration: histogram(r, "request_duration_seconds", DURATION, from_head)?,
            overhead: overhead(r)?,
            ttft: histogram(r, "ttft_seconds", TTFT, to_first)?,
            queue: histograms(
                r,
                "queue_seconds",
                "upstream",
                TTFT,
                "Wait for an upstream that is busy.",
            )?,
            tokens: counters(r, "tokens_total", &["direction", "model"], tokens)?,
            gpu_seconds: gpu_seconds(r)?,
            findings: counters(r, "findings_total", by_kind, "What scanners found and did.")?,
            opinions: counters(r, "opinions_total", of_opinion, "Second opinions on prompts.")?,
            opinion: histogram(r, "opinion_seconds", DURATION, waited)?,
            auth_failures: counters(r, "auth_failures_total", &["reason"], "Credentials refused.")?,
            quota_refusals: counters(r, "quota_refusals_total", &["meter"], "Quotas reached.")?,
        })
    }
}

impl State {
    fn new(r: &Registry) -> Result<Self, Error> {
        let up = "1 if the upstream can be reached, else 0.";
        let degraded = "1 if the component works by its failure policy, else 0.";
        let panics = IntCounter::new("panics_total", "Panics caught; each is a defect.");
        let refused = IntCounter::new("connections_refused_total", "Connections over the limit.");
        let unparsed = IntCounter::new(
            "requests_unparsed_total",
            "Connections that ended before a request on them was understood.",
        );
        let reloads = "Reloads of the configuration.";
        Ok(Self {
            reservations_open: gauge(r, "reservations_open", "Reservations not yet settled.")?,
            queue_depth: gauges(r, "queue_depth", "upstream", "Requests that wait for it.")?,
            streams_open: gauge(r, "streams_open", "Answers being streamed.")?,
            upstream_up: gauges(r, "upstream_up", "upstream", up)?,
            degraded: gauges(r, "degraded", "component", degraded)?,
            connections_refused: register(r, refused)?,
            requests_unparsed: register(r, unparsed)?,
            panics: register(r, panics)?,
            config_reloads: counters(r, "config_reloads_total", &["result"], reloads)?,
        })
    }
}

fn is_auth_failure(record: &AuditRecord) -> bool {
    record.operation() == Operation::Authentication
        && matches!(record.status(), Status::Failure | Status::Denied)
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// The statuses that the gateway sends by name, those that only an upstream sends by class.
const fn status_label(status: u16) -> &'static str {
    match status {
        200 => "200",
        201 => "201",
        202 => "202",
        204 => "204",
        206 => "206",
        304 => "304",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        409 => "409",
        411 => "411",
        413 => "413",
        415 => "415",
        422 => "422",
        429 => "429",
        431 => "431",
        499 => "499",
        500 => "500",
        502 => "502",
        503 => "503",
        504 => "504",
        _ => status_class(status),
    }
}

const fn status_class(status: u16) -> &'static str {
    match status {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => OTHER,
    }
}

fn register<C>(registry: &Registry, made: Result<C, Error>) -> Result<C, Error>
where
    C: Collector + Clone + 'static,
{
    let collector = made?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

type Labels<'a> = &'a [&'a str];

fn counters(r: &Registry, name: &str, of: Labels<'_>, help: &str) -> Result<IntCounterVec, Error> {
    register(r, IntCounterVec::new(Opts::new(name, help), of))
}

fn gauge(r: &Registry, name: &str, help: &str) -> Result<IntGauge, Error> {
    register(r, IntGauge::new(name, help))
}

fn gauges(r: &Registry, name: &str, of: &str, help: &str) -> Result<IntGaugeVec, Error> {
    register(r, IntGaugeVec::new(Opts::new(name, help), &[of]))
}

fn histogram(r: &Registry, name: &str, buckets: &[f64], help: &str) -> Result<Histogram, Error> {
    register(r, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
}

fn histograms(
    r: &Registry,
    name: &str,
    of: &str,
    buckets: &[f64],
    help: &str,
) -> Result<HistogramVec, Error> {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    register(r, HistogramVec::new(options, &[of]))
}

fn overhead(r: &Registry) -> Result<Vec<Histogram>, Error> {
    let options = HistogramOpts::new("overhead_seconds", "The gateway's own time, by room.");
    let all = HistogramVec::new(options.buckets(OVERHEAD.to_vec()), &["room"]);
    let all = register(r, all)?;
    Ok(ROOMS.iter().map(|room| all.with_label_values(&[room])).collect())
}

fn gpu_seconds(r: &Registry) -> Result<CounterVec, Error> {
    let options = Opts::new("gpu_seconds_total", "Seconds of GPU time settled.");
    register(r, CounterVec::new(options, &["model", "upstream"]))
}

fn register_audit(registry: &Registry, counters: &AuditCounters) -> Result<(), Error> {
    let records = Opts::new("audit_records_total", "Audit records written.");
    let failures =
        Opts::new("audit_failures_total", "Audit writes that failed, and records that were lost.");
    for (options, read) in [
        (records, AuditCounters::records as fn(&AuditCounters) -> u64),
        (failures, AuditCounters::failures),
    ] {
        let desc = IntCounter::with_opts(options.clone())?.desc().into_iter().cloned().collect();
        registry.register(Box::new(AuditCounter {
            options,
            desc,
            counters: counters.clone(),
            read,
        }))?;
    }
    Ok(())
}

/// Shows a number that the audit sink counts; it is read when the metrics are.
struct AuditCounter {
    options: Opts,
    desc: Vec<Desc>,
    counters: AuditCounters,
    read: fn(&AuditCounters) -> u64,
}

impl Collector for AuditCounter {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        IntCounter::with_opts(self.options.clone()).map_or_else(
            |_| Vec::new(),
            |counter| {
                counter.inc_by((self.read)(&self.counters));
                counter.collect()
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::audit::{Finding, Text};
    use crate::clock::Clock;
    use crate::opinion::{Failure, Opinion};

    fn metrics() -> Metrics {
        let names = Names {
            models: ["phi4:latest", "odd \"model\"\\\n"].into_iter().collect(),
            upstreams: ["local"].into_iter().collect(),
        };
        Metrics::new(names, &AuditCounters::default()).unwrap()
    }

    fn record(operation: Operation, status: Status) -> AuditRecord {
        AuditRecord::new(&Clock::system(), operation, status)
    }

    /// Reads a text exposition; panics where it is not one. Gives the samples by name and labels.
    fn parse(text: &str) -> HashMap<String, f64> {
        let (mut help, mut types) = (HashSet::new(), HashSet::new());
        let mut samples = HashMap::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let name = rest.split(' ').next().unwrap();
                assert!(help.insert(name.to_owned()), "second HELP: {line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(help.contains(name) && types.insert(name.to_owned()), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                check_series(series, &types);
                let value = value.parse().unwrap();
                assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
            }
        }
        assert_eq!(help, types);
        samples
    }

    fn check_series(series: &str, types: &HashSet<String>) {
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s));
        let known = types.contains(name) || family.is_some_and(|f| types.contains(f));
        assert!(known && name.starts_with("portcullis_"), "no TYPE before {series}");
        let mut rest = labels;
        while rest != "}" {
            let (label, quoted) = rest.split_once("=\"").expect("a label");
            assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{series}");
            rest = after_quote(quoted).trim_start_matches(',');
        }
    }

    fn after_quote(quoted: &str) -> &str {
        let mut characters = quoted.chars();
        while let Some(character) = characters.next() {
            match character {
                '"' => return characters.as_str(),
                '\\' => assert!(matches!(characters.next(), Some('\\' | '"' | 'n')), "{quoted}"),
                _ => {}
            }
        }
        panic!("no closing quote: {quoted}");
    }

    #[test]
    fn every_metric_of_the_contract_is_there() {
        let metrics = metrics();
        let mut request = record(Operation::Authentication, Status::Denied);
        request.usage = Some(Usage { gpu_seconds: 1.0, ..Usage::default() });
        request.findings.push(finding());
        metrics.observe(&request, "chat", 401);
        metrics.opined(&given(Source::Guard));
        metrics.quota_refused("tokens_per_day");
        metrics.set_queue_depth("local", 3);
        metrics.set_upstream_up("local", true);
        metrics.set_degraded("audit", false);
        metrics.config_reloaded(true);
        let samples = parse(&metrics.encode());
        for series in [
            "requests_total{endpoint=\"chat\",reason=\"none\",status=\"401\"}",
            "request_duration_seconds_count",
            "overhead_seconds_count{room=\"scan\"}",
            "ttft_seconds_count",
            "tokens_total{direction=\"input\",model=\"other\"}",
            "gpu_seconds_total{model=\"other\",upstream=\"none\"}",
            "findings_total{action=\"block\",direction=\"input\",kind=\"secret\"}",
            "opinions_total{outcome=\"timeout\",source=\"guard\"}",
            "opinion_seconds_count",
            "auth_failures_total{reason=\"none\"}",
            "quota_refusals_total{meter=\"tokens_per_day\"}",
            "reservations_open",
            "queue_depth{upstream=\"local\"}",
            "streams_open",
            "upstream_up{upstream=\"local\"}",
            "degraded{component=\"audit\"}",
            "audit_records_total",
            "audit_failures_total",
            "panics_total",
            "config_reloads_total{result=\"success\"}",
        ] {
            assert!(
                samples.contains_key(&format!("portcullis_{series}")),
                "{series}: {samples:#?}"
            );
        }
    }

    fn finding() -> Finding {
        Finding {
            rule: Text::new("SEC-001"),
            kind: "secret",
            role: "user",
            score: 1.0,
            action: "block",
            exception: None,
            direction: "input",
        }
    }

    fn given(source: Source) -> Given {
        let opinion = Opinion::Unavailable(Failure::Timeout);
        Given { opinion, source, is_whole: true, took: Duration::from_millis(300) }
    }

    #[test]
    fn only_what_the_guard_was_asked_takes_time() {
        let metrics = metrics();
        for source in [Source::Guard, Source::Cache, Source::Shared, Source::Cache] {
            metrics.opined(&given(source));
        }
        let samples = parse(&metrics.encode());
        for (series, expected) in [
            ("opinion_seconds_count", 1.0),
            ("opinion_seconds_sum", 0.3),
            ("opinions_total{outcome=\"timeout\",source=\"guard\"}", 1.0),
            ("opinions_total{outcome=\"timeout\",source=\"cache\"}", 2.0),
            ("opinions_total{outcome=\"timeout\",source=\"shared\"}", 1.0),
        ] {
            assert_eq!(samples.get(&format!("portcullis_{series}")), Some(&expected), "{series}");
        }
    }

    #[test]
    fn counters_move_as_the_record_says() {
        let metrics = metrics();
        let mut request = record(Operation::Inference, Status::Success);
        request.model = Some(Text::new("phi4:latest"));
        request.upstream = Some(Text::new("local"));
        request.usage = Some(Usage {
            prompt_tokens: 7,
            completion_tokens: 11,
            gpu_seconds: 0.5,
            estimated: false,
        });
        request.findings = vec![finding(), finding()];
        (request.latency_ms, request.ttft_ms) = (Some(1500), Some(250));
        request.overhead_us = Some(90);
        metrics.observe(&request, "chat", 200);
        metrics.observe(&request, "chat", 200);
        let samples = parse(&metrics.encode());
        for (series, expected) in [
            ("requests_total{endpoint=\"chat\",reason=\"none\",status=\"200\"}", 2.0),
            ("tokens_total{direction=\"input\",model=\"phi4:latest\"}", 14.0),
            ("tokens_total{direction=\"output\",model=\"phi4:latest\"}", 22.0),
            ("gpu_seconds_total{model=\"phi4:latest\",upstream=\"local\"}", 1.0),
            ("findings_total{action=\"block\",direction=\"input\",kind=\"secret\"}", 4.0),
            ("request_duration_seconds_sum", 3.0),
            ("request_duration_seconds_bucket{le=\"1\"}", 0.0),
            ("request_duration_seconds_bucket{le=\"2.5\"}", 2.0),
            ("ttft_seconds_bucket{le=\"0.25\"}", 2.0),
            ("overhead_seconds_bucket{room=\"total\",le=\"0.00005\"}", 0.0),
            ("overhead_seconds_bucket{room=\"total\",le=\"0.0001\"}", 2.0),
        ] {
            assert_eq!(samples.get(&format!("portcullis_{series}")), Some(&expected), "{series}");
        }
        assert!(!samples.keys().any(|series| series.contains("auth_failures")));
    }

    #[test]
    fn labels_stay_few_whatever_is_asked_for() {
        let metrics = metrics();
        for n in 0..10_000 {
            let mut request = record(Operation::Inference, Status::Success);
            request.model = Some(Text::new(&format!("model-{n}")));
            request.upstream = Some(Text::new(&format!("upstream-{n}")));
            request.user_id = Some(Text::new(&format!("user-{n}")));
            request.usage = Some(Usage { gpu_seconds: 1.0, ..Usage::default() });
            metrics.observe(&request, "chat", u16::try_from(n).unwrap());
            metrics.set_upstream_up(&format!("upstream-{n}"), true);
        }
        let text = metrics.encode();
        assert!(!text.contains("model-") && !text.contains("user-") && !text.contains("am-"));
        let lines = parse(&text).keys().filter(|series| !series.contains("_bucket")).count();
        assert!(lines < 90, "{lines} series");
    }

    #[test]
    fn odd_names_are_escaped() {
        let metrics = metrics();
        let mut request = record(Operation::Inference, Status::Success);
        let names = metrics.names.load();
        assert_eq!(names.models.label("odd \"model\"\\\n"), "odd \"model\"\\\n");
        request.model = Some(Text::new("odd \"model\"\\\n"));
        request.usage = Some(Usage { prompt_tokens: 1, ..Usage::default() });
        metrics.observe(&request, "chat", 200);
        let samples = parse(&metrics.encode());
        let series =
            "portcullis_tokens_total{direction=\"input\",model=\"odd \\\"model\\\"\\\\\\n\"}";
        assert_eq!(samples.get(series), Some(&1.0), "{samples:#?}");
    }

    #[test]
    fn odd_numbers_are_survived() {
        let metrics = metrics();
        for gpu_seconds in [-1.0, f64::NAN, f64::INFINITY, 2.0] {
            let mut request = record(Operation::Inference, Status::Success);
            request.usage = Some(Usage { gpu_seconds, ..Usage::default() });
            metrics.observe(&request, "chat", 200);
        }
        let samples = parse(&metrics.encode());
        let series = "portcullis_gpu_seconds_total{model=\"other\",upstream=\"none\"}";
        assert_eq!(samples.get(series), Some(&2.0));
    }

    #[test]
    fn a_reload_changes_the_names() {
        let metrics = metrics();
        let upstreams = ["remote"].into_iter().collect();
        metrics.set_names(Names { upstreams, ..Names::default() });
        metrics.set_upstream_up("remote", true);
        metrics.set_upstream_up("local", true);
        let samples = parse(&metrics.encode());
        assert!(samples.contains_key("portcullis_upstream_up{upstream=\"remote\"}"));
        assert!(!samples.contains_key("portcullis_upstream_up{upstream=\"local\"}"));
    }

    #[test]
    fn a_guard_counts_while_it_lives() {
        let metrics = metrics();
        let (first, second) = (metrics.stream_open(), metrics.stream_open());
        let open = |m: &Metrics| parse(&m.encode())["portcullis_streams_open"];
        assert_eq!(open(&metrics), 2.0);
        drop(first);
        assert_eq!(open(&metrics), 1.0);
        drop(second);
        assert_eq!(open(&metrics), 0.0);
    }

    #[test]
    fn the_audit_sink_is_read_when_the_metrics_are() {
        let audit = AuditCounters::default();
        let metrics = Metrics::new(Names::default(), &audit).unwrap();
        audit.write(3);
        audit.fail(2);
        let samples = parse(&metrics.encode());
        assert_eq!(samples["portcullis_audit_records_total"], 3.0);
        assert_eq!(samples["portcullis_audit_failures_total"], 2.0);
    }

    #[test]
    fn every_room_has_its_label() {
        assert_eq!(ROOMS.len(), Room::Total as usize + 1);
        let metrics = metrics();
        metrics.spent(Room::Authn, Duration::from_micros(3));
        metrics.spent(Room::Scan, Duration::from_micros(3));
        let samples = parse(&metrics.encode());
        for (room, expected) in ROOMS.iter().map(|room| (room, ["authn", "scan"].contains(room))) {
            let series = format!("portcullis_overhead_seconds_count{{room=\"{room}\"}}");
            assert_eq!(samples[&series], f64::from(u8::from(expected)), "{room}");
        }
    }

    #[test]
    fn a_status_is_counted_by_name_or_class() {
        for (status, expected) in [(200, "200"), (418, "4xx"), (599, "5xx"), (0, "other")] {
            assert_eq!(status_label(status), expected);
        }
    }
}
