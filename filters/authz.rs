//! Grant: identity + operation + prompt → [`Grant`]: the scope is held, the model is one the caller
//! may use and is called by its canonical name, and what it may cost is bounded.

use std::sync::Arc;

use crate::accounts::permission::{Accepts, Permission};
use crate::authn::Identity;
use crate::glob::Glob;
use crate::prompt::Prompt;
use crate::route::Route;
use crate::snapshot::Snapshot;
use crate::surface::{Access, Operation};
use crate::verdict::{Denial, Reason};

/// What one source of rights (a role, a key, a token) allows. A caller holds what all its layers
/// allow, so no layer can widen another.
#[derive(Clone, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "made from configuration and tokens")]
pub struct Layer {
    /// Scopes: exact, `llm:*` or `*`.
    pub scopes: Vec<String>,
    /// Models, by their canonical names; `None` leaves them to the other layers.
    pub models: Option<Vec<Glob>>,
    /// Cap on generated tokens.
    pub max_tokens: Option<u64>,
}

impl Layer {
    /// Whether this layer holds a scope. `*` and `llm:*` are patterns only on the holder's side.
    #[must_use]
    pub fn holds(&self, scope: &str) -> bool {
        self.scopes.iter().any(|held| covers(held, scope))
    }

    /// Whether this layer allows a model.
    #[must_use]
    pub fn allows(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob.matches(model)))
    }
}

/// Whether a held scope covers a wanted one.
#[must_use]
pub fn covers(held: &str, wanted: &str) -> bool {
    match held.strip_suffix('*') {
        Some("") => true,
        Some(prefix) => prefix.ends_with(':') && wanted.starts_with(prefix),
        None => held == wanted,
    }
}

/// The right to make one request of an upstream.
#[derive(Debug)]
pub struct Grant {
    identity: Arc<Identity>,
    model: String,
    max_tokens: u64,
    route: Route,
}

impl Grant {
    /// Who it was given to.
    #[must_use]
    pub const fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The canonical name of the model; empty for lists.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The most tokens that one answer may have.
    #[must_use]
    pub const fn max_tokens(&self) -> u64 {
        self.max_tokens
    }

    /// Lets answers have no more than this many tokens.
    pub(crate) fn lower_max_tokens(&mut self, max_tokens: u64) {
        self.max_tokens = self.max_tokens.min(max_tokens);
    }

    /// Where the request goes.
    #[must_use]
    pub const fn route(&self) -> &Route {
        &self.route
    }
}

/// Checks that the caller may use an operation at all, before its body is read.
///
/// # Errors
/// [`Reason::InsufficientScope`], naming the scope.
pub fn permit(identity: &Identity, operation: &Operation) -> Result<(), Denial> {
    match operation.access {
        Access::Open => Ok(()),
        Access::Scope(_) if identity.must_enrol() => Err(enrol_first()),
        Access::Scope(scope) => need_scope(identity, scope),
        Access::Permission(permission) => permit_account(identity, permission),
    }
}

/// Checks a row of the table of permissions; the code for a step-up is checked where it is used.
///
/// # Errors
/// [`Reason::InsufficientScope`], or [`Reason::MfaRequired`] for someone who must set up a second
/// factor first.
pub fn permit_account(identity: &Identity, permission: Permission) -> Result<(), Denial> {
    let rule = permission.rule();
    if identity.must_enrol() && !permission.is_open_before_enrolment() {
        return Err(enrol_first());
    }
    if identity.role() < rule.role {
        let message = format!("the role `{}` is needed for this operation", rule.role);
        return Err(Denial::new(Reason::InsufficientScope, message));
    }
    if !rule.accepts.includes(identity.credential()) {
        let message = match rule.accepts {
            Accepts::Login => "this operation needs a login",
            Accepts::LoginOrKey => "this operation needs a login or an API key",
            Accepts::Any | Accepts::NotScoped => "a scoped token cannot be used for this operation",
        };
        return Err(Denial::new(Reason::InsufficientScope, message));
    }
    rule.scope.map_or(Ok(()), |scope| need_scope(identity, scope))
}

fn need_scope(identity: &Identity, scope: &str) -> Result<(), Denial> {
    if identity.holds(scope) {
        return Ok(());
    }
    let message = format!("the scope `{scope}` is needed for this operation");
    Err(Denial::new(Reason::InsufficientScope, message))
}

fn enrol_first() -> Denial {
    Denial::new(
        Reason::MfaRequired,
        "your role needs a second factor: set one up with POST /auth/mfa/enable, then log in again",
    )
}

/// Grants a request with a body: finds the model's canonical name and its route, and writes the
/// bounded parameters into the prompt.
///
/// # Errors
/// [`Reason::ModelNotAllowed`] for a model that the caller may not use and, alike, for one that
/// does not exist; [`Reason::NotFound`] when nothing serves the operation.
pub fn grant(
    snapshot: &Snapshot,
    identity: &Arc<Identity>,
    prompt: &mut Prompt,
) -> Result<Grant, Denial> {
    let operation = prompt.operation();
    let model = resolve(snapshot, identity, prompt.model())?;
    let route = snapshot.route(operation, Some(&model))?;
    let caps = snapshot.caps();
    let wanted = prompt.max_tokens().unwrap_or(u64::MAX);
    let max_tokens = wanted.min(caps.max_tokens).min(identity.max_tokens());
    prompt.set_model(&model);
    prompt.bound(max_tokens, route.upstream().tokens_param(), caps);
    let max_tokens = if operation.generates() { max_tokens } else { 0 };
    Ok(Grant { identity: Arc::clone(identity), model, max_tokens, route })
}

/// Grants a request without a body: a list of models, or one model named by the path.
///
/// # Errors
/// As [`grant`].
pub fn grant_read(
    snapshot: &Snapshot,
    identity: &Arc<Identity>,
    operation: &Operation,
    model: Option<&str>,
) -> Result<Grant, Denial> {
    let model = model.map(|name| resolve(snapshot, identity, name)).transpose()?;
    let route = snapshot.route(operation, model.as_deref())?;
    let model = model.unwrap_or_default();
    Ok(Grant { identity: Arc::clone(identity), model, max_tokens: 0, route })
}

/// The canonical name of a model that this caller may use.
///
/// # Errors
/// [`Reason::ModelNotAllowed`]; [`Reason::InvalidRequest`] for what is not a model name.
pub fn resolve(snapshot: &Snapshot, identity: &Identity, spelling: &str) -> Result<String, Denial> {
    let name = canonical(spelling).ok_or_else(|| {
        Denial::new(Reason::InvalidRequest, "this is not the name of a model").param("model")
    })?;
    if !identity.allows(&name) {
        return Err(Denial::new(Reason::ModelNotAllowed, "this model is not available to you")
            .param("model"));
    }
    Ok(snapshot.spelling(&name).unwrap_or(name))
}

/// The one name that all spellings of a model resolve to: lower case, without the default registry,
/// namespace and tag of Ollama. `None` for what is not a plain model name: URLs, paths, digests,
/// white space, anything outside of ASCII.
#[must_use]
pub fn canonical(spelling: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'/');
    if spelling.is_empty() || !spelling.bytes().all(plain) {
        return None;
    }
    let lower = spelling.to_ascii_lowercase();
    let name = lower.strip_prefix("registry.ollama.ai/").unwrap_or(&lower);
    let name = name.strip_prefix("library/").unwrap_or(name);
    let name = name.strip_suffix(":latest").unwrap_or(name);
    let segment_ok = |s: &str| s.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    (name.split('/').all(segment_ok) && name.matches(':').count() <= 1 && !name.ends_with(':'))
        .then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::AccountRole;
    use crate::accounts::directory::Proof;
    use crate::accounts::permission::Credential;
    use crate::quota::{Level, Subject};
    use crate::snapshot::RoleRights;

    fn check(spelling: &str, expected: Option<&str>) {
        assert_eq!(canonical(spelling).as_deref(), expected, "{spelling:?}");
    }

    #[test]
    fn all_spellings_of_a_model_are_one_name() {
        for spelling in [
            "phi",
            "PHI",
            "phi:latest",
            "phi:LATEST",
            "library/phi",
            "registry.ollama.ai/library/phi",
            "registry.ollama.ai/library/phi:latest",
        ] {
            check(spelling, Some("phi"));
        }
        check("Qwen/Qwen2.5-7B", Some("qwen/qwen2.5-7b"));
        check("llama3.2:1b", Some("llama3.2:1b"));
    }

    #[test]
    fn what_is_not_a_plain_name_is_refused() {
        for spelling in [
            "",
            " phi",
            "phi ",
            "phi\n",
            "phi\0",
            "./phi",
            "../phi",
            "/phi",
            "a//b",
            "phi@sha256:00",
            "http://127.0.0.1/phi",
            "p\u{200b}hi",
            "ｐｈｉ",
            "phi:",
            "a:b:c",
            ":phi",
            "phi%20",
            "*",
        ] {
            check(spelling, None);
        }
    }

    #[test]
    fn scopes_cover_by_name_or_prefix() {
        for (held, wanted, expected) in [
            ("llm:generate", "llm:generate", true),
            ("llm:*", "llm:embed", true),
            ("*", "scan", true),
            ("llm:generate", "llm:embed", false),
            ("llm:*", "models:read", false),
            ("llm*", "llm:embed", false),
            ("llm:generate", "llm:*", false),
            ("", "scan", false),
        ] {
            assert_eq!(covers(held, wanted), expected, "{held} {wanted}");
        }
    }

    fn layer(scopes: &[&str], models: Option<&[&str]>, max_tokens: Option<u64>) -> Arc<Layer> {
        let models = models.map(|models| models.iter().map(|model| Glob::new(model)).collect());
        let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
        Arc::new(Layer { scopes, models, max_tokens })
    }

    /// Someone of a role that holds everything, identified by some credential.
    fn someone(role: AccountRole, credential: Credential) -> Identity {
        let rights =
            RoleRights { layer: layer(&["*"], None, None), limits: Arc::default(), weight: 1 };
        Identity::new("ada".into(), role, &rights, credential)
    }

    #[test]
    fn a_layer_without_models_leaves_them_to_others() {
        for (models, model, expected) in [
            (None, "phi", true),
            (Some(&["*"][..]), "phi", true),
            (Some(&["llama*", "phi"]), "phi", true),
            (Some(&["llama*"]), "phi", false),
            (Some(&[]), "phi", false),
        ] {
            assert_eq!(layer(&[], models, None).allows(model), expected, "{models:?}");
        }
    }

    #[test]
    fn a_layer_holds_what_one_of_its_scopes_covers() {
        let held = layer(&["models:read", "llm:*"], None, None);
        for (scope, expected) in [("models:read", true), ("llm:embed", true), ("scan", false)] {
            assert_eq!(held.holds(scope), expected, "{scope}");
        }
        assert!(!layer(&[], None, None).holds("scan"));
    }

    #[test]
    fn no_layer_widens_another() {
        let role = someone(AccountRole::User, Credential::Key);
        assert!(role.holds("scan") && role.allows("phi") && role.max_tokens() == u64::MAX);
        let key = role.within(layer(&["llm:*"], Some(&["phi*"]), Some(100)));
        let token = key.within(layer(&["*"], Some(&["*"]), Some(500)));
        assert!(token.holds("llm:embed") && !token.holds("scan"));
        assert!(token.allows("PHI3") && !token.allows("llama3"));
        assert_eq!(token.max_tokens(), 100);
    }

    #[test]
    fn an_identity_says_what_it_was_made_with() {
        let plain = someone(AccountRole::User, Credential::Key);
        let who = (plain.user(), plain.role(), plain.credential());
        assert_eq!(who, ("ada", AccountRole::User, Credential::Key));
        assert_eq!((plain.key_id(), plain.session(), plain.expires_at()), (None, None, None));
        assert!(!plain.must_enrol() && plain.proof().user.is_none());
        let proof = Proof { user: Some("ada".into()), ..Proof::default() };
        let made = plain.by("id".into()).in_session("session").until(Some(7)).proved(proof);
        let made = made.metered("id", Arc::default()).enrolling(true);
        let named = (made.key_id(), made.session(), made.expires_at());
        assert_eq!(named, (Some("id"), Some("session"), Some(7)));
        assert!(made.must_enrol() && made.proof().user.as_deref() == Some("ada"));
        let meters: Vec<_> = made.meters().iter().map(|meter| (meter.0, meter.1)).collect();
        let subject = |level, id| (level, Subject::new(level, id));
        assert_eq!(meters, [subject(Level::User, "ada"), subject(Level::Key, "id")]);
        assert_eq!(made.scopes().collect::<Vec<_>>(), [["*".to_owned()]]);
        assert_eq!(format!("{made:?}"), "ada (user) by Key Some(\"id\")");
    }

    fn told(permitted: Result<(), Denial>) -> Option<(Reason, String)> {
        permitted.err().map(|denial| (denial.reason(), denial.message().to_owned()))
    }

    fn scope(message: &str) -> Option<(Reason, String)> {
        Some((Reason::InsufficientScope, message.to_owned()))
    }

    #[test]
    fn a_permission_needs_its_role_and_those_above_have_it_too() {
        for permission in Permission::ALL {
            for role in AccountRole::ALL {
                let least = permission.rule().role;
                let message = format!("the role `{least}` is needed for this operation");
                let expected = if role < least { scope(&message) } else { None };
                let permitted = permit_account(&someone(role, Credential::Login), permission);
                assert_eq!(told(permitted), expected, "{permission:?} {role}");
            }
        }
    }

    #[test]
    fn a_permission_needs_its_credential() {
        use Credential::{Development, Key, Login, ScopedToken, Service};
        let login = scope("this operation needs a login");
        let login_or_key = scope("this operation needs a login or an API key");
        let not_scoped = scope("a scoped token cannot be used for this operation");
        for (permission, credentials, expected) in [
            (Permission::OwnAccount, &[Login, Key, ScopedToken, Service, Development][..], &None),
            (Permission::OwnKeys, &[Login], &None),
            (Permission::OwnKeys, &[Key, ScopedToken, Service, Development], &login),
            (Permission::MintTokens, &[Login, Key], &None),
            (Permission::MintTokens, &[ScopedToken, Service, Development], &login_or_key),
            (Permission::ManageUsers, &[Login, Key, Service, Development], &None),
            (Permission::ManageUsers, &[ScopedToken], &not_scoped),
        ] {
            for credential in credentials {
                let identity = someone(AccountRole::Owner, *credential);
                let permitted = told(permit_account(&identity, permission));
                assert_eq!(&permitted, expected, "{permission:?} {credential:?}");
            }
        }
    }

    #[test]
    fn a_permission_needs_its_scope_in_every_layer() {
        let admin = someone(AccountRole::Admin, Credential::Login);
        let refused = scope("the scope `users:write` is needed for this operation");
        for (scopes, expected) in [
            (&["*"][..], None),
            (&["users:*"], None),
            (&["users:write"], None),
            (&["users:read", "llm:*"], refused.clone()),
            (&[], refused),
        ] {
            let identity = admin.clone().within(layer(scopes, None, None));
            let permitted = permit_account(&identity, Permission::ReadUsers);
            assert_eq!(told(permitted), expected, "{scopes:?}");
            assert_eq!(told(permit_account(&identity, Permission::OwnAccount)), None);
        }
    }

    fn operation(id: &str) -> &'static Operation {
        crate::surface::operations().find(|operation| operation.id == id).unwrap()
    }

    #[test]
    fn an_operation_needs_what_its_row_says() {
        let user = someone(AccountRole::User, Credential::Key);
        let llm = user.clone().within(layer(&["llm:*"], None, None));
        let nothing = user.within(layer(&[], None, None));
        let login = scope("this operation needs a login");
        let generate = scope("the scope `llm:generate` is needed for this operation");
        for (identity, id, expected) in [
            (&nothing, "own.live", &None),
            (&llm, "openai.chat", &None),
            (&nothing, "openai.chat", &generate),
            (&nothing, "own.me", &None),
            (&llm, "own.key_create", &login),
        ] {
            assert_eq!(&told(permit(identity, operation(id))), expected, "{id}");
        }
    }

    #[test]
    fn who_must_set_up_a_second_factor_does_nothing_else() {
        let admin = someone(AccountRole::Owner, Credential::Login).enrolling(true);
        let reason = |permitted: Result<(), Denial>| permitted.err().map(|d| d.reason());
        for (id, open) in [
            ("own.live", true),
            ("own.me", true),
            ("own.key_create", false),
            ("openai.chat", false),
        ] {
            let expected = (!open).then_some(Reason::MfaRequired);
            assert_eq!(reason(permit(&admin, operation(id))), expected, "{id}");
        }
        use Permission::{OwnAccount, OwnMfa, OwnSessions};
        for permission in Permission::ALL {
            let open = [OwnAccount, OwnSessions, OwnMfa].contains(&permission);
            let expected = (!open).then_some(Reason::MfaRequired);
            assert_eq!(reason(permit_account(&admin, permission)), expected, "{permission:?}");
        }
    }

    mod grants {
        use std::path::Path;

        use serde_json::{Value, json};

        use super::*;
        use crate::clock::Clock;

        /// One server of the OpenAI kind, and a cap of 100 tokens.
        fn snapshot() -> Snapshot {
            let yaml = "\
                secrets: {key_pepper: {env: PEPPER}}\n\
                caps: {max_tokens: 100}\n\
                upstreams: {local: {kind: openai, url: 'http://h', models: [Qwen-Big]}}\n";
            let config = crate::config::parse("test", yaml).unwrap();
            let pepper = |_: &str| Some("kT9vPz3qLw8xYb2nRm5sHd7fJc4gAe1u".to_owned());
            let secrets = config.resolve_secrets(Path::new("/"), &pepper).unwrap();
            Snapshot::compile(&config, &secrets, Path::new("/"), &Clock::system()).unwrap()
        }

        fn holder(max_tokens: Option<u64>) -> Arc<Identity> {
            let layer = layer(&["*"], Some(&["phi*", "qwen-big"]), max_tokens);
            Arc::new(someone(AccountRole::User, Credential::Key).within(layer))
        }

        fn ask(snapshot: &Snapshot, id: &str, body: &Value) -> Prompt {
            Prompt::parse(operation(id), body.to_string().as_bytes(), snapshot.caps()).unwrap()
        }

        fn chat(snapshot: &Snapshot, model: &str, max_tokens: Option<u64>) -> Prompt {
            let messages = json!([{"role": "user", "content": "hi"}]);
            let mut body = json!({"model": model, "messages": messages});
            if let Some(max_tokens) = max_tokens {
                body["max_tokens"] = max_tokens.into();
            }
            ask(snapshot, "openai.chat", &body)
        }

        #[test]
        fn the_least_cap_counts_and_is_written_into_the_prompt() {
            let snapshot = snapshot();
            for (wanted, held, expected) in [
                (Some(10), Some(50), 10),
                (Some(80), Some(50), 50),
                (None, Some(50), 50),
                (Some(80), None, 80),
                (Some(500), None, 100),
                (None, Some(500), 100),
            ] {
                let (holder, mut prompt) = (holder(held), chat(&snapshot, "PHI:latest", wanted));
                let grant = grant(&snapshot, &holder, &mut prompt).unwrap();
                assert_eq!((grant.model(), grant.max_tokens()), ("phi", expected));
                assert!(Arc::ptr_eq(grant.identity(), &holder));
                assert_eq!(grant.route().upstream().name, "local");
                let sent: Value = serde_json::from_slice(&prompt.into_bytes().unwrap()).unwrap();
                assert_eq!(
                    (&sent["model"], &sent["max_tokens"]),
                    (&json!("phi"), &json!(expected))
                );
            }
        }

        #[test]
        fn what_generates_nothing_holds_no_tokens() {
            let snapshot = snapshot();
            let body = json!({"model": "phi", "input": "hi"});
            let mut prompt = ask(&snapshot, "openai.embeddings", &body);
            let grant = grant(&snapshot, &holder(None), &mut prompt).unwrap();
            assert_eq!((grant.model(), grant.max_tokens()), ("phi", 0));
        }

        #[test]
        fn a_model_of_others_is_not_granted() {
            let snapshot = snapshot();
            let mut prompt = chat(&snapshot, "llama3", None);
            let denial = grant(&snapshot, &holder(None), &mut prompt).unwrap_err();
            assert_eq!(denial.reason(), Reason::ModelNotAllowed);
            assert_eq!(denial.param_name(), Some("model"));
        }

        #[test]
        fn a_list_is_granted_and_one_model_by_the_name_that_its_server_uses() {
            let snapshot = snapshot();
            let read = |id: &str, model: Option<&str>| {
                let grant = grant_read(&snapshot, &holder(None), operation(id), model);
                grant.map(|grant| (grant.model, grant.max_tokens)).map_err(|d| d.reason())
            };
            for (id, model, expected) in [
                ("openai.models", None, Ok(("", 0))),
                ("openai.model", Some("PHI"), Ok(("phi", 0))),
                ("openai.model", Some("qwen-BIG"), Ok(("Qwen-Big", 0))),
                ("openai.model", Some("llama3"), Err(Reason::ModelNotAllowed)),
                ("openai.model", Some("../phi"), Err(Reason::InvalidRequest)),
                ("ollama.tags", None, Err(Reason::NotFound)),
            ] {
                let expected =
                    expected.map(|(model, tokens): (&str, u64)| (model.to_owned(), tokens));
                assert_eq!(read(id, model), expected, "{id} {model:?}");
            }
        }
    }
}
