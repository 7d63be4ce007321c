//! What a client's errors mean: ask again, another sample, or the end of the run.

use object_store::Error;

use super::{Address, StoreError};

/// What became of one try.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may work the next time.
    Passing(String),
    /// There is no such object, or no such bucket: the answer to a question for an object's size does not say which.
    Missing,
    Final(StoreError),
}

/// Words of answers that will not get better: S3 answers expired credentials with 400, to HEAD without a reason.
const REFUSALS: [&str; 4] = ["400 Bad Request", "InvalidAccessKeyId", "RequestTimeTooSkewed", "SignatureDoesNotMatch"];

/// Paths of the metadata services of virtual machines (AWS, Google, Azure), which clients ask for credentials when none are set.
const METADATA: [&str; 4] = ["latest/api/token", "latest/meta-data/", "computeMetadata/", "metadata/identity/"];

/// Whether an error is of a metadata service: the path of the address in it begins as theirs do.
fn of_metadata(text: &str) -> bool {
    let path = text.split_once("://").and_then(|(_, address)| address.split_once('/'));
    path.is_some_and(|(_, path)| METADATA.iter().any(|known| path.starts_with(known)))
}

/// What is wrong with a server's certificate, in the words of the client, which are not the error's own but of its causes.
fn of_certificate(error: &Error) -> Option<String> {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).find(|text| text.starts_with("invalid peer certificate"))
}

/// `answered`: the store has answered before, so there are credentials.
pub(super) fn failure(error: Error, address: &Address, answered: bool) -> Failure {
    let text = vjepa_recipe::text::short(&error.to_string(), 400);
    let refused = || {
        Failure::Final(StoreError::Storage(format!(
            "is refused by the object store: {text}; renew or correct the credentials, then continue with --resume"
        )))
    };
    // The text names the object, whose key may hold any words: only errors without a kind of their own are searched.
    let generic = matches!(error, Error::Generic { .. });
    if generic && of_metadata(&text) {
        return match answered {
            true => Failure::Passing(text),
            false => Failure::Final(StoreError::Storage(format!(
                "cannot be read without credentials: set {} (none is set, and no metadata service gives any: {text})",
                address.credentials()
            ))),
        };
    }
    if let Some(why) = of_certificate(&error) {
        return Failure::Final(StoreError::Storage(format!(
            "cannot be read: the server is not trusted ({}); add the certificate of its authority to the system's, or name a file \
             with it in SSL_CERT_FILE",
            vjepa_recipe::text::short(&why, 200)
        )));
    }
    match error {
        Error::NotFound { .. } => Failure::Missing,
        // A listing's, of Google and Azure.
        _ if generic && text.contains("status code: 404") => Failure::Missing,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => refused(),
        Error::InvalidPath { .. } | Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            Failure::Final(StoreError::Storage(format!("cannot be read: {text}")))
        }
        _ if REFUSALS.iter().any(|word| text.contains(word)) => refused(),
        _ => Failure::Passing(text),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_metadata_service_that_is_away_means_no_credentials_until_there_were_some() {
        let gone = || Error::Generic {
            store: "GCS",
            source: "Error performing GET http://169.254.169.254/computeMetadata/v1/instance: no route".into(),
        };
        let address = Address::of(Path::new("gs://bucket/key")).unwrap();
        let first = failure(gone(), &address, false);
        let Failure::Final(StoreError::Storage(why)) = &first else { panic!("{first:?}") };
        assert!(why.contains("set GOOGLE_APPLICATION_CREDENTIALS"), "{why}");
        assert!(matches!(failure(gone(), &address, true), Failure::Passing(_)));
        // An object's own name says nothing of credentials.
        let source = "Error performing GET http://host/bucket/metadata/identity/7.mp4: timeout".into();
        assert!(matches!(failure(Error::Generic { store: "S3", source }, &address, false), Failure::Passing(_)));
        let (path, source) = ("metadata/identity/computeMetadata/status code: 404".to_owned(), "no".into());
        assert!(matches!(failure(Error::NotFound { path, source }, &address, false), Failure::Missing));
    }
}
