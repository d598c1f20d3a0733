//! What object stores' own tools read from the environment: here also from files of the same names, as a Secret is
//! mounted.

use std::{collections::BTreeMap, fs, path::Path};

use super::location::Store;

/// Variables by their names. There is no `Debug`: most of them are secrets.
#[derive(Clone, Default)]
pub struct Variables(BTreeMap<String, String>);

/// Names by which tools know what the crate that speaks with the stores calls otherwise.
const OTHER_NAMES: [(&str, &str); 4] = [
    ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"),
    ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"),
    // How Azure tells a container of its managed identity.
    ("IDENTITY_ENDPOINT", "AZURE_MSI_ENDPOINT"),
    ("AZURE_STORAGE_SERVICE_ENDPOINT", "AZURE_STORAGE_ENDPOINT"),
];

/// Variables that are paths of a key's file. A mounted file of such a name may hold the key itself.
const PATHS: [&str; 3] =
    ["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"];

impl Variables {
    /// Those of this process, and those that are files in a folder. What the process has goes before, as with HF_TOKEN.
    pub fn read(folder: Option<&Path>) -> Self {
        let mut all: BTreeMap<_, _> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        for entry in folder.and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten() {
            let path = entry.path();
            let (Ok(name), Ok(text)) = (entry.file_name().into_string(), fs::read_to_string(&path)) else {
                continue;
            };
            let value = if PATHS.contains(&name.as_str()) && text.trim_start().starts_with('{') {
                path.display().to_string()
            } else {
                text.trim().to_owned()
            };
            all.entry(name).or_insert(value);
        }
        Self::of(all)
    }

    /// Keeps what concerns an object store.
    pub fn of(all: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut kept = BTreeMap::new();
        let mut renamed = BTreeMap::new();
        for (name, value) in all {
            if value.is_empty() {
                continue;
            }
            match OTHER_NAMES.iter().find(|(other, _)| *other == name) {
                Some((_, known)) => renamed.insert((*known).to_owned(), value),
                None if Store::ALL.iter().any(|store| name.starts_with(store.variables())) => {
                    kept.insert(name, value)
                }
                None => None,
            };
        }
        renamed.append(&mut kept);
        Self(renamed)
    }

    /// What is set for a store, as the crate that speaks with it names settings.
    pub(super) fn settings(&self, store: Store) -> impl Iterator<Item = (String, &str)> {
        let of_store = self.0.iter().filter(move |(name, _)| name.starts_with(store.variables()));
        of_store.map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
    }

    /// As whom a store is asked.
    pub(super) fn identity(&self, store: Store) -> Identity {
        let skip = self.0.get(&format!("{}SKIP_SIGNATURE", store.variables()));
        if skip.is_some_and(|skip| {
            matches!(skip.to_ascii_lowercase().as_str(), "1" | "true" | "on" | "yes" | "y")
        }) {
            Identity::Nobody
        } else if store.identities().iter().any(|name| self.0.contains_key(*name)) {
            Identity::Given
        } else {
            Identity::Machine
        }
    }
}

/// As whom a store is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// Anybody: the bucket is public.
    Nobody,
    /// Who the variables say.
    Given,
    /// Whoever the machine is in its cloud, if it is in one.
    Machine,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(all: &[(&str, &str)]) -> Variables {
        Variables::of(all.iter().map(|&(name, value)| (name.into(), value.into())))
    }

    fn settings(variables: &Variables, store: Store) -> Vec<(String, &str)> {
        variables.settings(store).collect()
    }

    #[test]
    fn each_store_has_its_own_and_nothing_else_is_kept() {
        let variables = of(&[
            ("AWS_REGION", "eu-west-1"),
            ("GOOGLE_BASE_URL", "http://a"),
            ("AZURE_STORAGE_ACCOUNT", "one"),
            ("AZURE_STORAGE_KEY", ""),
            ("HOME", "/root"),
        ]);
        assert_eq!(settings(&variables, Store::S3), [("aws_region".into(), "eu-west-1")]);
        assert_eq!(settings(&variables, Store::Google), [("google_base_url".into(), "http://a")]);
        assert_eq!(settings(&variables, Store::Azure), [("azure_storage_account_name".into(), "one")]);
        assert_eq!(variables.0.len(), 3);
    }

    #[test]
    fn who_asks_is_known_beforehand() {
        for (variables, store, identity) in [
            (of(&[]), Store::S3, Identity::Machine),
            (of(&[("AWS_ACCESS_KEY_ID", "a")]), Store::S3, Identity::Given),
            (of(&[("AWS_ACCESS_KEY_ID", "a")]), Store::Google, Identity::Machine),
            (of(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/a")]), Store::S3, Identity::Given),
            (of(&[("AWS_SKIP_SIGNATURE", "true")]), Store::S3, Identity::Nobody),
            (of(&[("AZURE_STORAGE_ACCOUNT_NAME", "a")]), Store::Azure, Identity::Machine),
            (of(&[("AZURE_STORAGE_KEY", "a")]), Store::Azure, Identity::Given),
            (of(&[("GOOGLE_APPLICATION_CREDENTIALS", "/a")]), Store::Google, Identity::Given),
        ] {
            assert_eq!(variables.identity(store), identity, "{:?}", variables.0);
        }
    }

    #[test]
    fn mounted_files_are_variables() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text| fs::write(folder.path().join(name), text).expect("it can be written");
        write("AWS_SECRET_ACCESS_KEY", "secret\n");
        write("GOOGLE_APPLICATION_CREDENTIALS", "{\"type\": \"service_account\"}");
        // So Kubernetes mounts a Secret: the files are links into a folder of another name.
        fs::create_dir(folder.path().join("..data")).expect("it can be made");
        let variables = Variables::read(Some(folder.path()));
        assert_eq!(variables.0["AWS_SECRET_ACCESS_KEY"], "secret");
        let key = folder.path().join("GOOGLE_APPLICATION_CREDENTIALS");
        assert_eq!(variables.0["GOOGLE_APPLICATION_CREDENTIALS"], key.display().to_string());
        write("GOOGLE_APPLICATION_CREDENTIALS", "/keys/one.json\n");
        assert_eq!(
            Variables::read(Some(folder.path())).0["GOOGLE_APPLICATION_CREDENTIALS"],
            "/keys/one.json"
        );
    }
}
