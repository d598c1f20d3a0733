//! Which image pods are made from: the one with CUDA for NVIDIA's GPUs, else the small one.

use super::super::{config::InferencePod, validate::Service};

/// What NVIDIA's device plugin offers: `nvidia.com/gpu`, and parts of GPUs as `nvidia.com/mig-1g.10gb`.
const NVIDIA: &str = "nvidia.com/";

/// There is no image that can use what a service asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} was asked for, and no image with CUDA is configured: set inferencePod.cudaImage.repository in the values of kembed's chart"
)]
pub struct NoImage(String);

/// Whether pods of the service run on NVIDIA's GPUs.
pub(super) fn wants_cuda(service: &Service) -> bool {
    service.accelerator.as_ref().is_some_and(|resource| resource.name.starts_with(NVIDIA))
}

/// The image for pods of the service. Makers of accelerators that kembed does not know get the one for CPUs, whose pods say
/// that they cannot use them.
///
/// # Errors
/// If it needs one that nobody configured.
pub(super) fn choose<'a>(service: &Service, config: &'a InferencePod) -> Result<&'a str, NoImage> {
    match &service.accelerator {
        Some(resource) if wants_cuda(service) => {
            config.cuda_image.as_deref().ok_or_else(|| NoImage(resource.name.clone()))
        }
        _ => Ok(&config.image),
    }
}
