//! Where a model is.

/// What `spec.model.uri` says, as far as pods are built differently for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelUri {
    /// The pod downloads it: `hf://`, `https://`, `s3://`, `gs://`, `az://`.
    Download(String),
    /// A folder on a PersistentVolumeClaim of the namespace.
    PersistentVolumeClaim {
        /// Name of the claim.
        claim: String,
        /// Folder from the root of the volume, without slashes at its ends; empty for the root.
        folder: String,
    },
    /// An image that holds the files at its root.
    Image {
        /// Reference of the image.
        reference: String,
    },
}

/// A URI that no pod can be built for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no model URI: it must begin with hf://, s3://, gs://, az://, https://, pvc:// or image://")]
pub struct InvalidModelUri(String);

impl ModelUri {
    /// Reads a URI.
    ///
    /// # Errors
    /// If its scheme is unknown, what follows is empty, or a folder points out of its volume.
    pub fn parse(uri: &str) -> Result<Self, InvalidModelUri> {
        let invalid = || InvalidModelUri(uri.to_owned());
        let (scheme, rest) =
            uri.split_once("://").filter(|(_, rest)| !rest.is_empty()).ok_or_else(invalid)?;
        match scheme {
            "hf" | "https" | "s3" | "gs" | "az" => Ok(Self::Download(uri.to_owned())),
            "image" => Ok(Self::Image { reference: rest.to_owned() }),
            "pvc" => {
                let (claim, folder) = rest.split_once('/').unwrap_or((rest, ""));
                let folder = folder.trim_matches('/');
                if claim.is_empty() || folder.split('/').any(|part| part == "..") {
                    return Err(invalid());
                }
                Ok(Self::PersistentVolumeClaim { claim: claim.to_owned(), folder: folder.to_owned() })
            }
            _ => Err(invalid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        assert_eq!(ModelUri::parse("hf://a/b@main"), Ok(ModelUri::Download("hf://a/b@main".into())));
        assert_eq!(
            ModelUri::parse("pvc://models/a/b/"),
            Ok(ModelUri::PersistentVolumeClaim { claim: "models".into(), folder: "a/b".into() })
        );
        assert_eq!(
            ModelUri::parse("pvc://models"),
            Ok(ModelUri::PersistentVolumeClaim { claim: "models".into(), folder: String::new() })
        );
        assert_eq!(ModelUri::parse("image://a.b/c:1"), Ok(ModelUri::Image { reference: "a.b/c:1".into() }));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for uri in ["", "model", "ftp://a/b", "hf://", "pvc:///a", "pvc://a/../b", "http://a/b", "HF://a/b"] {
            assert!(ModelUri::parse(uri).is_err(), "{uri:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(uri in any::<String>()) {
            let _ = ModelUri::parse(&uri);
        }
    }
}
