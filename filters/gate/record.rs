//! The audit record and the metrics of a request, from the same trace.

use crate::audit::{AuditRecord, Coverage, Finding, Operation, Scanned, Severity, Status, Text};
use crate::clear::Sanitized;
use crate::context::{Ctx, Trace};
use crate::scan::Action;
use crate::surface::{OwnOp, Target};
use crate::verdict::Reason;

/// Writes the one record of a request.
pub(super) fn finish(ctx: &mut Ctx) {
    ctx.closed = true;
    let record = record(ctx);
    let endpoint = ctx.operation.map_or("none", |operation| operation.id);
    ctx.state.metrics.observe(&record, endpoint, ctx.trace.status);
    if is_audited(ctx) {
        ctx.state.audit.record(record);
    }
}

/// Probes tell an auditor nothing; they are counted in the metrics. One that is refused is recorded.
fn is_audited(ctx: &Ctx) -> bool {
    let probe = ctx.operation.is_some_and(crate::surface::Operation::is_probe);
    !probe || ctx.trace.denial.is_some()
}

fn record(ctx: &mut Ctx) -> AuditRecord {
    let (user_agent, path) = (ctx.trace.user_agent.take(), ctx.trace.path.take());
    let trace = &ctx.trace;
    let clock = &ctx.state.clock;
    let mut record = AuditRecord::new(clock, operation(ctx), status(trace));
    let text = |value: &Option<String>| value.as_deref().map(Text::new);
    record.reason = trace.denial.as_ref().map(|denial| denial.reason().code());
    record.request_id = Some(Text::new(&ctx.id.to_string()));
    record.user_id = text(&trace.user);
    record.key_id = text(&trace.key);
    record.client_ip = trace.client;
    record.user_agent = user_agent;
    record.endpoint = path;
    record.model = text(&trace.model);
    record.upstream = text(&trace.upstream);
    record.latency_ms = Some(clock.monotonic_ns().saturating_sub(ctx.begun) / 1_000_000);
    record.ttft_ms = trace.first_text.map(|at| at.saturating_sub(ctx.begun) / 1_000_000);
    record.overhead_us = trace.overhead.map(|nanos| nanos / 1_000);
    record.scanned = Scanned { input: trace.input, output: Coverage::None };
    record.input_length = trace.input_length;
    record.prompt_digest = trace.prompt_digest;
    record.usage = trace.usage;
    findings(&mut record, trace);
    firewall(&mut record, trace);
    for (name, value) in &trace.details {
        record.detail(name, value.as_str());
    }
    if let Some(queued) = trace.queued {
        let ms = u64::try_from(queued.as_millis()).unwrap_or(u64::MAX);
        record.detail("queue_ms", ms);
    }
    if trace.status > 0 {
        record.detail("status", trace.status);
    }
    if let Some(denial) = &trace.denial {
        record.detail("message", denial.message());
        if !denial.operator_detail().is_empty() {
            record.detail("detail", denial.operator_detail());
        }
    }
    record
}

fn findings(record: &mut AuditRecord, trace: &Trace) {
    record.findings = trace.report.findings.iter().map(finding).collect();
    let worst = trace.report.findings.iter().max_by_key(|finding| finding.action);
    if let Some(worst) = worst.filter(|worst| worst.action > Action::Allow) {
        let severity =
            if worst.action == Action::Block { Severity::High } else { Severity::Medium };
        record.threat(worst.kind.as_str(), severity);
    }
}

/// By which policy the prompt was judged, and what that leaves unsaid.
fn firewall(record: &mut AuditRecord, trace: &Trace) {
    let Some(policy) = &trace.policy else { return };
    record.detail("policy", &**policy);
    let report = &trace.report;
    if report.unwatched > report.verdict {
        record.detail("would", report.unwatched.as_str());
    }
    if !trace.sanitized.is_empty() {
        let told = trace.sanitized.iter().map(Sanitized::told).collect::<Vec<_>>();
        record.detail("sanitized", told);
    }
    if report.overrun {
        record.detail("overrun", true);
    }
    if !report.pseudonyms.is_empty() {
        record.detail("pseudonyms", report.pseudonyms.iter().count());
    }
}

fn finding(finding: &crate::scan::Finding) -> Finding {
    Finding {
        rule: Text::new(&finding.rule),
        kind: finding.kind.as_str(),
        role: finding.role.as_str(),
        score: f64::from(finding.score),
        action: finding.action.as_str(),
        exception: finding.exception.as_deref().map(Text::new),
        direction: "input",
    }
}

/// What the record is about: the reason of a refusal tells more than the path.
fn operation(ctx: &Ctx) -> Operation {
    match ctx.trace.denial.as_ref().map(crate::verdict::Denial::reason) {
        Some(Reason::InvalidCredentials | Reason::MfaRequired) => return Operation::Authentication,
        Some(Reason::InsufficientScope | Reason::ModelNotAllowed) => {
            return Operation::Authorization;
        }
        Some(Reason::RateLimitExceeded | Reason::InsufficientQuota) => return Operation::RateLimit,
        _ => {}
    }
    match ctx.operation.map(|operation| operation.target) {
        Some(Target::Own(op)) => own_operation(op),
        Some(Target::Upstream(_)) | None => Operation::Inference,
    }
}

const fn own_operation(op: OwnOp) -> Operation {
    match op {
        OwnOp::Login
        | OwnOp::Logout
        | OwnOp::Me
        | OwnOp::ScopedToken
        | OwnOp::TokenRevoke
        | OwnOp::MfaConfirm => Operation::Authentication,
        OwnOp::Password
        | OwnOp::Sessions
        | OwnOp::SessionRevoke
        | OwnOp::MfaEnable
        | OwnOp::MfaDisable
        | OwnOp::Keys
        | OwnOp::KeyCreate
        | OwnOp::KeyRevoke
        | OwnOp::KeyRotate
        | OwnOp::Register
        | OwnOp::Users
        | OwnOp::UserShow
        | OwnOp::UserChange
        | OwnOp::UserDelete
        | OwnOp::UserRole
        | OwnOp::UserPassword
        | OwnOp::UserRevoke
        | OwnOp::UserMfaReset
        | OwnOp::UserSessions
        | OwnOp::UserKeys
        | OwnOp::UserKeyCreate => Operation::Account,
        OwnOp::Quotas
        | OwnOp::QuotaShow
        | OwnOp::QuotaSet
        | OwnOp::QuotaUnset
        | OwnOp::QuotaReset => Operation::Configuration,
        OwnOp::EmergencyRevoke
        | OwnOp::EmergencyLimits
        | OwnOp::EmergencyLimitsSet
        | OwnOp::EmergencyLimitsClear
        | OwnOp::Sanitization
        | OwnOp::SanitizationSet
        | OwnOp::SanitizationClear => Operation::Incident,
        OwnOp::Scan
        | OwnOp::Jwks
        | OwnOp::OpenApi
        | OwnOp::Live
        | OwnOp::Ready
        | OwnOp::Health
        | OwnOp::Metrics => Operation::Inference,
    }
}

fn status(trace: &Trace) -> Status {
    match &trace.denial {
        Some(denial) => match denial.reason() {
            // The client left while it waited for its turn.
            Reason::RequestTimeout if trace.aborted => Status::Aborted,
            Reason::InvalidCredentials
            | Reason::MfaRequired
            | Reason::UpstreamUnavailable
            | Reason::UpstreamTimeout
            | Reason::UpstreamRefused
            | Reason::Internal => Status::Failure,
            Reason::InvalidRequest
            | Reason::ContentFilter
            | Reason::InsufficientScope
            | Reason::ModelNotAllowed
            | Reason::NotFound
            | Reason::MethodNotAllowed
            | Reason::Conflict
            | Reason::RequestTimeout
            | Reason::PayloadTooLarge
            | Reason::UnsupportedMediaType
            | Reason::RateLimitExceeded
            | Reason::InsufficientQuota
            | Reason::Overloaded
            | Reason::Draining => Status::Denied,
        },
        None if trace.aborted => Status::Aborted,
        None => Status::Success,
    }
}
