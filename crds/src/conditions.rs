//! The conditions of an EmbeddingService and their reasons: what each means and what to do about it.
//! `docs/conditions.md` is made from this file, but for the reasons of counts.

/// Declares an enum of words that stand in a status, each with the sentence that explains it to a user.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($word:ident = $meaning:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $(#[doc = $meaning] $word,)+ }

        impl $name {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$word,)+];

            /// The word as it stands in a status.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$word => stringify!($word),)+ }
            }

            /// What it means and what to do about it.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$word => $meaning,)+ }
            }

            /// Reads the word.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == word)
            }
        }
    };
}

words! {
    /// Types of conditions.
    ConditionType {
        Ready = "Requests are answered.",
        Progressing = "Pods are being created, replaced or removed.",
        ModelAvailable = "The model was found and loaded.",
        SpaceConsistent = "All pods serve the vector space recorded in status.space.",
        CapacityAvailable = "Every pod has a node.",
        ObjectiveAttainable = "Some count of pods can keep the latency objective. Only set if spec.scaling.latency is.",
        AcceleratorVerified = "The accelerator was seen to compute what a CPU does, in every pod that has reported. A pod that has not shown it does not make the service Ready. Only set if spec.accelerator is.",
    }
}

words! {
    /// Reasons of conditions.
    Reason {
        Serving = "At least one pod answers requests.",
        Off = "spec.replicas is 0 and spec.scaling is not set: requests are refused. Set replicas to switch the service on.",
        ScaledToZero = "No pod runs, for nobody asks. The first request for vectors makes replicas 1, and waits for that pod.",
        Starting = "No pod answers yet; nothing is known to be wrong.",
        RollingOut = "Pods are being created, replaced or removed.",
        Settled = "The pods are as the spec says.",
        Loaded = "A pod has loaded the model.",
        Loading = "No pod has loaded the model yet.",
        Recorded = "The first ready pod's vector space is recorded, and no pod serves another.",
        NotRecorded = "No pod was ready yet, so that there is no vector space to compare with.",
        Scheduled = "Every pod has a node.",
        Attainable = "A request alone is answered within the target.",
        NotMeasured = "Not enough requests were answered yet to know how long one alone takes.",
        TargetTooLow = "A request alone takes longer than spec.scaling.latency.target, so that no count of pods keeps the objective, and none is added for its sake; the message has the measured time. Raise the target, send shorter requests, or use a faster accelerator.",
        Verified = "Every pod that has reported computes on its accelerator what a CPU does; the message names the device, the least cosine between the two that was seen, and the least that is right.",
        NotVerified = "No pod has reported on its accelerator, or one answers without having done so.",
        InvalidSpec = "The spec cannot work; the message says which field and what to write instead.",
        NameConflict = "An object of the name that this service needs exists and is not this service's. Rename one of them, or delete the other.",
        PodRejected = "The API server refused the pods or another object; the message is the API server's.",
        Unschedulable = "No node takes the pod; the message says which resource is short. Add nodes, or lower the request.",
        NodeOrdered = "No node takes the pod yet, and the cluster's autoscaler says that one comes.",
        CapacityRefused = "No node takes the pod, and the cluster's autoscaler says that none will come; the message is its own. Requests are refused, and no further pods are asked for. Change what the pod asks for, or what the autoscaler may buy.",
        ImagePullFailed = "An image cannot be pulled: check its name, its tag and imagePullSecrets.",
        CredentialsNotFound = "The Secret named in spec.model.credentials does not exist in this namespace. Create it.",
        VolumeNotMounted = "A volume of the pod cannot be mounted; the message is the kubelet's.",
        ContainerNotCreated = "The container cannot be created; the message is the kubelet's.",
        OutOfMemory = "The inference pod was killed at its memory limit: raise spec.podTemplate.resources.limits.memory.",
        ModelNotFound = "The source has no such model, revision or file: check spec.model.uri and spec.model.file.",
        CredentialsMissing = "The source demands credentials: name a Secret in spec.model.credentials.",
        CredentialsRefused = "The source refused the credentials: check the Secret, and that its account may read the model.",
        SourceUnreachable = "The source did not answer, or failed again and again: check the network and its policies.",
        SourceUnsupported = "This version cannot read from that kind of source.",
        ModelUnsupported = "This version cannot run that kind of model; the message says what is missing.",
        ModelInvalid = "A file of the model is damaged or incomplete.",
        CacheFull = "The cache has no room for the model: raise spec.model.cache, or free the volume.",
        AcceleratorUnavailable = "The accelerator that was asked for cannot be used; the message says why.",
        AcceleratorInaccurate = "The accelerator computes other vectors than a CPU does of the same model, so that nothing is answered from it; the message names the device and the cosine. If it is one device of several of its kind, that one or its node is broken.",
        AcceleratorLost = "The accelerator failed or hangs, and the inference pod starts anew; the message is the driver's. If it goes on, the device or its node is broken.",
        StartFailed = "The inference pod failed to start; the message says why.",
        Crashed = "The inference pod ended without saying why; see its logs.",
        DigestMismatch = "A pod loaded other files than the recorded vector space was made with, and gets no requests. Pin the revision in spec.model.uri, or restore the files.",
        PinMismatch = "The model does not have the digest that spec.model.digest demands, and gets no requests.",
    }
}

/// A word and what it means.
pub type Row = (&'static str, &'static str);

/// `docs/conditions.md`: every type and every reason with its meaning, and the reasons of counts, which those who decide on
/// counts bring.
pub fn documentation(scaling: impl Iterator<Item = Row>) -> String {
    fn table(heading: &str, rows: impl Iterator<Item = Row>) -> String {
        let rows: String = rows.map(|(word, meaning)| format!("| `{word}` | {meaning} |\n")).collect();
        format!("| {heading} | meaning |\n|---|---|\n{rows}")
    }
    format!(
        "<!-- Generated from crds/src/conditions.rs and scaling/src/decision.rs by `operator docs`; `make generate` writes it again. -->\n\
         # Conditions of an EmbeddingService\n\n\
         `kubectl get emb` shows the reason of `Ready`; `kubectl describe emb NAME` shows all conditions with their \
         messages. While something stands in the way, `Ready` has the reason of the condition that knows why.\n\n\
         {}\n{}\n{}",
        table("type", ConditionType::ALL.iter().map(|c| (c.as_str(), c.meaning()))),
        table("reason", Reason::ALL.iter().map(|r| (r.as_str(), r.meaning()))),
        table("status.scaling.reason", scaling),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        assert!(Reason::ALL.iter().all(|&reason| Reason::parse(reason.as_str()) == Some(reason)));
        assert_eq!(Reason::parse("serving"), None);
    }

    #[test]
    fn words_are_as_kubernetes_demands() {
        for word in
            Reason::ALL.iter().map(|r| r.as_str()).chain(ConditionType::ALL.iter().map(|c| c.as_str()))
        {
            assert!(
                word.starts_with(|c: char| c.is_ascii_uppercase())
                    && word.chars().all(|c| c.is_ascii_alphanumeric())
            );
        }
    }
}
