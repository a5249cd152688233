//! TLS with a real server's certificate.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
};

use headless_lb::{ProbeFailure, Role, Tls};

use super::{
    authority::{Authority, Identity},
    *,
};

const NAME: &str = "db.prod.svc.cluster.local";

/// Gives a running server a certificate, and turns TLS on.
async fn secure(server: &Server, identity: &Identity) {
    let control = server
        .session()
        .await
        .expect("the server takes the certificate");
    let folder = control
        .text("SHOW data_directory")
        .await
        .expect("the server takes the certificate");
    let owner = fs::metadata(&folder).expect("the server takes the certificate");
    for (file, text) in [
        ("server.crt", &identity.certificate_pem),
        ("server.key", &identity.key_pem),
    ] {
        let path = Path::new(&folder).join(file);
        fs::write(&path, text).expect("the server takes the certificate");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .expect("the server takes the certificate");
        chown(&path, Some(owner.uid()), Some(owner.gid()))
            .expect("the server takes the certificate");
    }
    control
        .execute("ALTER SYSTEM SET ssl = on")
        .await
        .expect("the server takes the certificate");
    control
        .execute("SELECT pg_reload_conf()")
        .await
        .expect("the certificate is sound");
    control
        .until("SELECT current_setting('ssl') = 'on'", "no TLS")
        .await
        .expect("the certificate is sound");
}

fn proving(authority: &Authority, name: &str) -> Tls {
    Tls::service(authority.client(), name).expect("the certificate is sound")
}

#[tokio::test]
async fn a_server_that_proves_its_name_is_asked_over_tls() {
    let cluster = Cluster::start().await.unwrap();
    let (server, authority) = (cluster.server(0), Authority::new());
    secure(server, &authority.certify(NAME)).await;
    let tls = proving(&authority, NAME);
    let probe = probe().tls(tls.clone());
    let (mut session, seen) = open(&probe, server).await.unwrap();
    assert_eq!(seen.unwrap().role(), Role::Primary);
    let control = server.session().await.unwrap();
    let query =
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'probe'";
    assert_eq!(control.text(query).await.unwrap(), "t");
    // A signal comes through TLS as well.
    server.terminate("probe").await.unwrap();
    timeout(PATIENCE, probe.signalled(&mut session))
        .await
        .unwrap();
    let endpoint = endpoint(server).await;
    let error = probe.observe(&endpoint, &mut session).await.unwrap_err();
    assert!(why(&error).contains("57P01"), "{error:?}");
    // What must not be said in clear may be said here.
    let clear = Postgres::new("probe_password").password(PASSWORD).tls(tls);
    assert!(open(&clear, server).await.is_ok());
}

#[tokio::test]
async fn a_server_that_proves_nothing_gets_no_password() {
    let cluster = Cluster::start().await.unwrap();
    let (server, authority) = (cluster.server(0), Authority::new());
    let error = refused(&probe().tls(proving(&authority, NAME)), server).await;
    assert_eq!(error.failure(), ProbeFailure::Tls);
    assert!(why(&error).contains("has no TLS"), "{error:?}");

    secure(server, &authority.certify(NAME)).await;
    for tls in [
        proving(&authority, "another.svc.cluster.local"),
        proving(&Authority::new(), NAME),
    ] {
        let error = refused(&probe().tls(tls), server).await;
        assert_eq!(error.failure(), ProbeFailure::Tls, "{error:?}");
        assert!(!error.is_definitive());
    }
}
