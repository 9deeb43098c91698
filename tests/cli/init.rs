use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::authenticator;
use super::mock::Mock;
use super::support::{Folder, Gateway, Ran};

const PASSWORD: &str = "seven purple tractors hum quietly";
const MADE: &str = "made/portcullis.yaml";

fn init(folder: &Folder, args: &[&str]) -> Ran {
    folder.tell(&[&["init", "--dir", "made"], args].concat(), &format!("{PASSWORD}\n"))
}

#[test]
fn what_it_writes_is_good_private_and_not_written_over() {
    let folder = Folder::new("");
    let ran = init(&folder, &[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(folder.run(&["check", "-c", MADE]).code, Some(0));
    for name in
        ["portcullis.yaml", "signing.pem", "token.key", "pepper.key", "store.key", "portcullis.db"]
    {
        let metadata = std::fs::metadata(folder.path("made").join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
    }
    assert!(!folder.path("made/owner.hash").exists());
    let again = init(&folder, &[]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.err.contains("is there already"), "{again:?}");
}

#[test]
fn a_bad_password_or_name_leaves_nothing_behind() {
    let folder = Folder::new("");
    for (args, password, words) in [
        (&[][..], "short", "shorter than 12"),
        (&[], "password1234", "many people use"),
        (&["--owner", "o w"], PASSWORD, "1 to 64"),
        (&["--upstream", "ftp://h"], PASSWORD, "http"),
    ] {
        let ran = folder.tell(&[&["init", "--dir", "made"], args].concat(), password);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.err.contains(words) && !folder.path("made").exists(), "{words}: {ran:?}");
    }
}

/// A gateway on what `init` wrote for the addresses of a folder.
async fn serve(folder: &Folder, upstream: &str, args: &[&str]) -> (Gateway, Ran) {
    let listen = folder.listen.to_string();
    let ran = init(folder, &[&["--upstream", upstream, "--listen", &listen], args].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let made = folder.read(MADE).replace("127.0.0.1:8081", &folder.admin.to_string());
    folder.write(MADE, &made);
    let gateway = Gateway::spawn(folder, &["serve", "-c", MADE]);
    gateway.ready(folder).await;
    (gateway, ran)
}

#[tokio::test]
async fn the_owner_confirms_the_second_factor_before_anything_else() {
    let (mock, folder) = (Mock::start(), Folder::new(""));
    let (gateway, ran) = serve(&folder, &mock.url, &[]).await;
    let word = |name: &str| {
        let line = ran.out.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().to_owned()
    };
    let secret = word("secret");
    assert!(word("address").contains(&secret), "{ran:?}");
    assert_eq!(ran.out.lines().filter(|line| line.len() == 19).count(), 10, "{ran:?}");
    let mut form = json!({ "username": "owner", "password": PASSWORD });
    let (status, token) = gateway.login(&form).await;
    assert_eq!((status, gateway.status("/v1/models", &token).await), (200, 401));
    let now = jsonwebtoken::get_current_timestamp();
    let code = json!({ "code": authenticator::code(&secret, now) });
    let confirmed = gateway.post("/auth/mfa/confirm", &code).bearer_auth(&token);
    let confirmed: Value = confirmed.send().await.unwrap().json().await.unwrap();
    assert_eq!(confirmed["mfa_enabled"], true, "{confirmed}");
    form["mfa_code"] = json!(authenticator::code(&secret, now + 30));
    let (status, token) = gateway.login(&form).await;
    assert_eq!((status, gateway.status("/v1/models", &token).await), (200, 200));
}

#[tokio::test]
async fn without_a_second_factor_none_is_asked_for() {
    let (mock, folder) = (Mock::start(), Folder::new(""));
    let (gateway, ran) = serve(&folder, &mock.url, &["--no-mfa", "--owner", "Ann"]).await;
    assert!(!ran.out.contains("otpauth"), "{ran:?}");
    let (status, token) = gateway.login(&json!({ "username": "ann", "password": PASSWORD })).await;
    assert_eq!((status, gateway.status("/v1/models", &token).await), (200, 200));
}
