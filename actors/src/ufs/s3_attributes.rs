//! Attributes of an S3 object, replaced without its content: the object is copied onto itself, with other metadata.
//!
//! OpenDAL has no such request. It is had to write the object, which says all that the mount's options want of a request; on
//! its way out, that is made a copy, and signed anew.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use curvine_protocol::{Error, KeptAttributes, Result, UfsVersion};
use http::HeaderValue;
use http::header::{AUTHORIZATION, HOST, HeaderName};
use opendal::options::WriteOptions;
use opendal::{Buffer, HttpBody, HttpTransport, HttpTransporter, Metadata};
use reqsign_aws_v4::{Credential, DefaultCredentialProvider, RequestSigner, StaticCredentialProvider};
use reqsign_core::{Context, OsEnv, ProvideCredentialChain, Signer};
use reqsign_file_read_tokio::TokioFileRead;
use tokio::sync::OnceCell;

use super::attributes::{METADATA_BYTES_MAX, encode, is_field};
use super::changes::COPY_BYTES_MAX;
use super::{Ufs, probe_name, quoted, through, version};

/// Headers that are of the content which is not sent, or of the signature.
const NOT_OF_A_COPY: &[&str] = &[
    "authorization",
    "content-md5",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-security-token",
];

/// What a copy needs beside the request that it is made of.
#[derive(Clone)]
pub struct Copying {
    signer: Signer<Credential>,
    /// In front of a request's path, where that does not begin with the bucket.
    bucket: String,
    /// Whether the store was seen to make such copies.
    is_known: Arc<OnceCell<bool>>,
}

impl Copying {
    /// For a bucket and the options of a mount, which were checked.
    pub fn new(bucket: &str, options: &BTreeMap<String, String>) -> Self {
        let is_on = |name: &str| options.get(name).is_some_and(|value| value == "true");
        let of = |name: &str| {
            options
                .get(name)
                .map(String::as_str)
                .filter(|value| !value.is_empty())
        };
        let mut default = DefaultCredentialProvider::builder();
        if is_on("disable_config_load") {
            default = default.no_env().no_profile();
        } else if let Some(profile) = of("profile") {
            default = default.with_profile(profile);
        }
        if is_on("disable_ec2_metadata") {
            default = default.no_imds();
        }
        let mut provider = ProvideCredentialChain::new().push(default.build());
        if let (Some(id), Some(key)) = (of("access_key_id"), of("secret_access_key")) {
            let keys = StaticCredentialProvider::new(id, key);
            provider = provider.push_front(match of("session_token") {
                Some(token) => keys.with_session_token(token),
                None => keys,
            });
        }
        Copying {
            // Which region it is, each request says.
            signer: Signer::new(Context::new(), provider, RequestSigner::new("s3", "")),
            bucket: match is_on("enable_virtual_host_style") {
                true => format!("/{bucket}"),
                false => String::new(),
            },
            is_known: Arc::default(),
        }
    }
}

/// Makes a request that writes an object one that copies it onto itself.
struct IntoCopy {
    inner: HttpTransporter,
    copying: Copying,
    etag: String,
}

impl IntoCopy {
    async fn copy(&self, request: http::Request<Buffer>) -> opendal::Result<http::Request<Buffer>> {
        let (mut parts, body) = request.into_parts();
        let scope = parts.headers.get(AUTHORIZATION).and_then(scope_of);
        let is_signed = parts.headers.contains_key(AUTHORIZATION);
        let dropped = parts.headers.keys().filter(|name| {
            let name = name.as_str();
            NOT_OF_A_COPY.contains(&name) || name.starts_with("x-amz-checksum-")
        });
        for name in dropped.cloned().collect::<Vec<_>>() {
            parts.headers.remove(name);
        }
        let source = format!("{}{}", self.copying.bucket, parts.uri.path());
        for (name, value) in [
            ("x-amz-copy-source", source.as_str()),
            ("x-amz-copy-source-if-match", &quoted(&self.etag)),
            ("x-amz-metadata-directive", "REPLACE"),
        ] {
            let value = HeaderValue::from_str(value).map_err(|error| failed(&error))?;
            parts.headers.insert(HeaderName::from_static(name), value);
        }
        if is_signed {
            let (region, service) = scope.ok_or_else(|| failed(&"its signature has no region"))?;
            let context = Context::new()
                .with_file_read(TokioFileRead)
                .with_http_send(self.inner.clone())
                .with_env(OsEnv);
            let signer = self.copying.signer.clone().with_context(context);
            let signer = signer.with_request_signer(RequestSigner::new(&service, &region));
            signer
                .sign(&mut parts, None)
                .await
                .map_err(|error| failed(&error))?;
            // As OpenDAL does: whoever sends it says that.
            parts.headers.remove(HOST);
        }
        Ok(http::Request::from_parts(parts, body))
    }
}

impl HttpTransport for IntoCopy {
    async fn fetch(&self, request: http::Request<Buffer>) -> opendal::Result<http::Response<HttpBody>> {
        let request = match *request.method() == http::Method::PUT {
            true => self.copy(request).await?,
            false => request,
        };
        self.inner.fetch(request).await
    }
}

fn failed(error: &dyn std::fmt::Display) -> opendal::Error {
    opendal::Error::new(
        opendal::ErrorKind::Unexpected,
        format!("a copy of an object onto itself cannot be signed: {error}"),
    )
}

/// The region and the service that a request was signed for: `... Credential=ID/DATE/REGION/SERVICE/aws4_request, ...`.
fn scope_of(authorization: &HeaderValue) -> Option<(String, String)> {
    let (_, scope) = authorization.to_str().ok()?.split_once("Credential=")?;
    let mut parts = scope.split(',').next()?.rsplit('/').skip(1);
    let (service, region) = (parts.next()?, parts.next()?);
    Some((region.to_owned(), service.to_owned()))
}

impl Ufs {
    /// Whether the store copies an object onto itself, seen once by trying with one that is nobody's.
    async fn knows_copies(&self, copying: &Copying) -> Result<bool> {
        let known = copying
            .is_known
            .get_or_try_init(|| self.try_a_copy(copying))
            .await;
        known.copied()
    }

    async fn try_a_copy(&self, copying: &Copying) -> Result<bool> {
        let probe = &*probe_name("copy");
        let fault = |error| self.fault(probe, error);
        let written = self.operator.write(probe, "curvine").await.map_err(fault)?;
        let etag = match written.etag() {
            Some(etag) => Some(etag.to_owned()),
            None => self
                .ask(probe)
                .await?
                .and_then(|found| found.etag().map(str::to_owned)),
        };
        let fields = HashMap::from([("curvine-probe".to_owned(), "copied".to_owned())]);
        let options = WriteOptions {
            user_metadata: Some(fields.clone()),
            ..WriteOptions::default()
        };
        let etag = etag.unwrap_or_default().trim_matches('"').to_owned();
        let copied = self.copy_onto_itself(copying, probe, etag, options).await;
        let found = self.ask(probe).await?;
        self.operator.delete(probe).await.map_err(fault)?;
        match copied {
            // It may do better next time.
            Err(error) if error.is_temporary() => Err(fault(error)),
            Err(error) => {
                tracing::warn!(
                    "{}: attributes are written with the content alone: {error}",
                    self.uri
                );
                Ok(false)
            }
            Ok(()) => {
                Ok(found.is_some_and(|found| found.content_length() == 7 && fields_of(&found) == fields))
            }
        }
    }

    async fn copy_onto_itself(
        &self,
        copying: &Copying,
        path: &str,
        etag: String,
        options: WriteOptions,
    ) -> opendal::Result<()> {
        let operator = through(&self.operator, |inner| IntoCopy {
            inner,
            copying: copying.clone(),
            etag,
        });
        operator
            .write_options(path, Buffer::new(), options)
            .await
            .map(|_| ())
    }

    /// See [`Ufs::set_attributes`].
    pub(super) async fn set_s3_attributes(
        &self,
        copying: &Copying,
        key: &str,
        meant: &UfsVersion,
        kept: &KeptAttributes,
    ) -> Result<Option<UfsVersion>> {
        let Some(found) = self.ask(key).await?.filter(|found| version(found) == *meant) else {
            return Ok(None);
        };
        let Some(etag) = meant.etag.clone().filter(|_| meant.size_bytes <= COPY_BYTES_MAX) else {
            // More than one request copies. It gets them with its next content.
            return Ok(Some(meant.clone()));
        };
        // To a store that does not know what a copy is, it would be a write of nothing.
        if meant.size_bytes > 0 && !self.answered(key, self.knows_copies(copying)).await? {
            return Ok(Some(meant.clone()));
        }
        let options = options_for(&found, kept);
        let wanted = options.user_metadata.clone();
        match self
            .copy_onto_itself(copying, &self.storable(key)?, etag, options)
            .await
        {
            Ok(()) => {}
            Err(error) if error.kind() == opendal::ErrorKind::ConditionNotMatch => return Ok(None),
            Err(error) => return Err(self.fault(key, error)),
        }
        // A copy can fail after the store has said that all is well; and somebody may have been quicker.
        match self.ask(key).await? {
            Some(now) if now.content_length() == meant.size_bytes && Some(fields_of(&now)) == wanted => {
                Ok(Some(version(&now)))
            }
            _ => Err(Error::new(
                curvine_protocol::ErrorKind::Ufs,
                format!(
                    "{}: `{key}`: the store did not replace its metadata; `cv mount --update PATH --attributes namespace` \
                     does without",
                    self.uri
                ),
            )),
        }
    }
}

fn fields_of(metadata: &Metadata) -> HashMap<String, String> {
    let fields = metadata.user_metadata();
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    fields.map_or_else(HashMap::new, |fields| fields.into_iter().map(owned).collect())
}

/// Everything that the object says of itself but its attributes stays.
fn options_for(found: &Metadata, kept: &KeptAttributes) -> WriteOptions {
    let mut fields = fields_of(found);
    fields.retain(|name, _| !is_field(name));
    let taken: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    fields.extend(encode(kept, METADATA_BYTES_MAX.saturating_sub(taken)));
    let owned = |value: Option<&str>| value.map(str::to_owned);
    WriteOptions {
        user_metadata: Some(fields),
        content_type: owned(found.content_type()),
        content_disposition: owned(found.content_disposition()),
        content_encoding: owned(found.content_encoding()),
        cache_control: owned(found.cache_control()),
        ..WriteOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_of_a_signature_says_region_and_service() {
        let of = |text: &'static str| scope_of(&HeaderValue::from_static(text));
        let signed = "AWS4-HMAC-SHA256 Credential=ID/20260101/eu-west-1/s3/aws4_request, SignedHeaders=host, Signature=00";
        assert_eq!(of(signed), Some(("eu-west-1".to_owned(), "s3".to_owned())));
        assert_eq!(of("Bearer something"), None);
    }
}
