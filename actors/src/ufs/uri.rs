//! What a mount's URI and options mean to OpenDAL.

use std::collections::BTreeMap;
use std::path::Path;

use curvine_protocol::mount::{MountRecord, own_options};
use curvine_protocol::{Error, Result};

/// A service of OpenDAL and its options.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    pub scheme: &'static str,
    pub options: Vec<(String, String)>,
}

/// A scheme, the service it means, and how the rest of the URI is given to it.
struct Scheme {
    names: &'static [&'static str],
    service: &'static str,
    authority: Authority,
    options: &'static [&'static str],
}

enum Authority {
    /// `s3://bucket/prefix`: the option that the host part becomes.
    Option(&'static str),
    /// `http://host:port/path`: the endpoint, with this scheme.
    Endpoint(&'static str),
    /// `hdfs://host:port/path`: a name node's address, or the name of a service that is several of them.
    NameNode,
    /// `file:///dir`: there is none.
    None,
}

const SCHEMES: &[Scheme] = &[
    Scheme {
        names: &["s3", "s3a", "s3n"],
        service: "s3",
        authority: Authority::Option("bucket"),
        options: &[
            "endpoint",
            "region",
            "profile",
            "access_key_id",
            "secret_access_key",
            "session_token",
            "role_arn",
            "external_id",
            "role_session_name",
            "assume_role_duration_seconds",
            "disable_config_load",
            "disable_ec2_metadata",
            "skip_signature",
            "allow_anonymous",
            "server_side_encryption",
            "server_side_encryption_aws_kms_key_id",
            "server_side_encryption_customer_algorithm",
            "server_side_encryption_customer_key",
            "server_side_encryption_customer_key_md5",
            "default_storage_class",
            "enable_virtual_host_style",
            "batch_max_operations",
            "delete_max_size",
            "disable_stat_with_override",
            "checksum_algorithm",
            "disable_write_with_if_match",
            "disable_list_objects_v2",
            "enable_request_payer",
            "default_acl",
            "root",
        ],
    },
    Scheme {
        names: &["oss"],
        service: "oss",
        authority: Authority::Option("bucket"),
        options: &[
            "endpoint",
            "access_key_id",
            "access_key_secret",
            "security_token",
            "addressing_style",
            "server_side_encryption",
            "server_side_encryption_key_id",
            "skip_signature",
            "allow_anonymous",
            "batch_max_operations",
            "role_arn",
            "role_session_name",
            "oidc_provider_arn",
            "oidc_token_file",
            "sts_endpoint",
            "external_id",
            "root",
        ],
    },
    Scheme {
        names: &["cos", "cosn"],
        service: "cos",
        authority: Authority::Option("bucket"),
        options: &[
            "endpoint",
            "secret_id",
            "secret_key",
            "security_token",
            "disable_config_load",
            "root",
        ],
    },
    Scheme {
        names: &["obs"],
        service: "obs",
        authority: Authority::Option("bucket"),
        options: &["endpoint", "access_key_id", "secret_access_key", "root"],
    },
    Scheme {
        names: &["gs", "gcs"],
        service: "gcs",
        authority: Authority::Option("bucket"),
        options: &[
            "endpoint",
            "scope",
            "service_account",
            "credential",
            "credential_path",
            "predefined_acl",
            "default_storage_class",
            "skip_signature",
            "allow_anonymous",
            "disable_vm_metadata",
            "disable_config_load",
            "token",
            "root",
        ],
    },
    Scheme {
        names: &["az", "azblob", "abfs", "wasb"],
        service: "azblob",
        authority: Authority::Option("container"),
        options: &[
            "endpoint",
            "account_name",
            "account_key",
            "encryption_key",
            "encryption_key_sha256",
            "encryption_algorithm",
            "sas_token",
            "batch_max_operations",
            "skip_signature",
            "root",
        ],
    },
    Scheme {
        names: &["webhdfs"],
        service: "webhdfs",
        authority: Authority::Endpoint("http"),
        options: &[
            "endpoint",
            "user_name",
            "delegation",
            "disable_list_batch",
            "atomic_write_dir",
            "root",
        ],
    },
    Scheme {
        names: &["hdfs"],
        service: "hdfs",
        authority: Authority::NameNode,
        // Those with a dot are keys of core-site.xml and hdfs-site.xml, by their names there. A star is the rest of a name.
        options: &[
            "user_name",
            "config_dir",
            "dfs.ha.namenodes.*",
            "dfs.namenode.rpc-address.*",
            "dfs.client.failover.proxy.provider.*",
            "dfs.client.failover.random.order.*",
            "dfs.client.failover.resolve-needed.*",
            "dfs.client.failover.resolver.useFQDN.*",
            "dfs.client.failover.max.attempts",
            "dfs.client.failover.sleep.base.millis",
            "dfs.client.failover.sleep.max.millis",
            "dfs.client.socket-timeout",
            "dfs.client.use.datanode.hostname",
            "dfs.client.block.write.replace-datanode-on-failure.enable",
            "dfs.client.block.write.replace-datanode-on-failure.policy",
            "dfs.client.block.write.replace-datanode-on-failure.best-effort",
            "root",
        ],
    },
    Scheme {
        names: &["http"],
        service: "http",
        authority: Authority::Endpoint("http"),
        options: &["endpoint", "username", "password", "token", "root"],
    },
    Scheme {
        names: &["https"],
        service: "http",
        authority: Authority::Endpoint("https"),
        options: &["endpoint", "username", "password", "token", "root"],
    },
    Scheme {
        names: &["file", "fs"],
        service: "fs",
        authority: Authority::None,
        options: &["atomic_write_dir"],
    },
];

/// Where mounts of local directories and of HDFS write what is not complete yet; it is not shown.
pub const UPLOADS_DIRECTORY: &str = ".curvine-uploads";

/// # Errors
/// `InvalidArgument` for an unknown scheme, a missing bucket or an unknown option, naming the nearest.
pub fn parse(uri: &str, options: &BTreeMap<String, String>) -> Result<Target> {
    let target = understand(uri, options)?;
    let root = target.option("root");
    if target.scheme == "fs" && !Path::new(root).is_dir() {
        return Err(Error::new(
            curvine_protocol::ErrorKind::NotFound,
            format!("`{uri}`: {root} is not a directory on this node"),
        ));
    }
    Ok(target)
}

/// As [`parse`], without a look at the directory that it may name.
fn understand(uri: &str, options: &BTreeMap<String, String>) -> Result<Target> {
    let Some((name, rest)) = uri.split_once("://") else {
        return Err(Error::invalid(format!(
            "`{uri}` is not a URI; write s3://bucket/prefix or file:///directory"
        )));
    };
    let Some(scheme) = SCHEMES
        .iter()
        .find(|scheme| scheme.names.contains(&name.to_ascii_lowercase().as_str()))
    else {
        let known: Vec<&str> = SCHEMES.iter().map(|scheme| scheme.names[0]).collect();
        return Err(Error::invalid(format!(
            "`{uri}`: unknown scheme `{name}`; known are {}",
            known.join(", ")
        )));
    };
    let (authority, path) = rest
        .split_once('/')
        .map_or((rest, ""), |(authority, path)| (authority, path));
    if authority.contains('@') {
        // The URI is shown to everybody and may be in logs by now: it is not repeated.
        return Err(Error::invalid(format!(
            "{name}://...: credentials have no place in a URI, which everybody sees; give them as options with -o"
        )));
    }
    let path = urlencoding::decode(path).map_err(|_| Error::invalid(format!("`{uri}`: bad % escape")))?;
    if path.split('/').any(|part| part == ".." || part == ".") || path.contains('\0') {
        return Err(Error::invalid(format!(
            "`{uri}`: `.` and `..` have no place in the path of a mount"
        )));
    }
    for option in options.keys() {
        if !scheme.takes(option) {
            return Err(unknown_option(scheme, option));
        }
    }
    for (option, value) in options {
        check_value(option, value)?;
    }
    let mut all: BTreeMap<String, String> = options.clone();
    match scheme.authority {
        Authority::Option(_) | Authority::Endpoint(_) | Authority::NameNode if authority.is_empty() => {
            return Err(Error::invalid(format!(
                "`{uri}`: no bucket or host after `{name}://`"
            )));
        }
        Authority::Option(option) => {
            all.insert(option.to_owned(), authority.to_owned());
        }
        Authority::Endpoint(protocol) => {
            all.entry("endpoint".to_owned())
                .or_insert_with(|| format!("{protocol}://{authority}"));
        }
        Authority::NameNode if !is_host(authority) || authority.contains(',') => {
            return Err(Error::invalid(format!(
                "`{uri}`: `{authority}` is no name node; write hdfs://HOST:PORT/DIRECTORY, or the name of a service whose name \
                 nodes the options dfs.ha.namenodes.NAME and dfs.namenode.rpc-address.NAME.ID say"
            )));
        }
        Authority::NameNode => {
            all.insert("name_node".to_owned(), authority.to_owned());
        }
        Authority::None if !authority.is_empty() => {
            return Err(Error::invalid(format!(
                "`{uri}`: write file:///directory, with three slashes"
            )));
        }
        Authority::None => {}
    }
    let base = all
        .get("root")
        .map(|root| root.trim_matches('/').to_owned())
        .unwrap_or_default();
    let root = [base.as_str(), path.trim_matches('/')]
        .iter()
        .filter(|part| !part.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join("/");
    all.insert("root".to_owned(), format!("/{root}"));
    if scheme.service == "fs" {
        // OpenDAL would make it. What is incomplete has one place, UPLOADS_DIRECTORY.
        all.remove("atomic_write_dir");
    }
    if scheme.service == "webhdfs" {
        // Without one, OpenDAL writes only what fits into one request.
        all.insert("atomic_write_dir".to_owned(), format!("{UPLOADS_DIRECTORY}/"));
    }
    if scheme.service == "s3" && !all.contains_key("region") {
        let profile = all.get("profile").cloned();
        all.insert("region".to_owned(), aws_region(profile.as_deref()));
    }
    Ok(Target {
        scheme: scheme.service,
        options: all.into_iter().collect(),
    })
}

impl Target {
    /// Empty if it is not given.
    fn option(&self, name: &str) -> &str {
        let mut options = self.options.iter();
        options.find(|(is, _)| is == name).map_or("", |(_, value)| value)
    }

    /// Whether some objects are the other's, too.
    fn overlaps(&self, other: &Target) -> bool {
        let same = |option: &&str| {
            self.option(option).trim_end_matches('/') == other.option(option).trim_end_matches('/')
        };
        let (own, others) = (Path::new(self.option("root")), Path::new(other.option("root")));
        self.scheme == other.scheme
            && ["bucket", "container", "endpoint", "name_node"].iter().all(same)
            && (own.starts_with(others) || others.starts_with(own))
    }
}

/// # Errors
/// `InvalidArgument` if a writable mount has objects of another one that is writable: what is written through one of them
/// would be a change from outside to the other. A store that has two endpoints is taken for two.
pub fn check_shared<'m>(
    (uri, options): (&str, &BTreeMap<String, String>),
    writable: bool,
    mut others: impl Iterator<Item = &'m MountRecord>,
) -> Result<()> {
    let Some(target) = understand(uri, options).ok().filter(|_| writable) else {
        return Ok(());
    };
    let shares = |other: &&MountRecord| {
        let of_other = || understand(&other.uri, &other.options);
        other.settings.writable && of_other().is_ok_and(|other| target.overlaps(&other))
    };
    match others.find(shares) {
        None => Ok(()),
        Some(other) => Err(Error::invalid(format!(
            "{uri}: {} has objects of it as well, and is writable: what is written through one mount would be a change by \
             somebody else to the other; write through that one, or mount one of them without --write ({})",
            other.path, other.uri
        ))),
    }
}

impl Scheme {
    fn takes(&self, option: &str) -> bool {
        self.options.iter().any(|known| match known.strip_suffix('*') {
            Some(start) => option.strip_prefix(start).is_some_and(|rest| !rest.is_empty()),
            None => *known == option,
        })
    }
}

/// Options that are yes or no.
const FLAGS: &[&str] = &[
    "allow_anonymous",
    "disable_config_load",
    "disable_ec2_metadata",
    "disable_list_batch",
    "disable_list_objects_v2",
    "disable_stat_with_override",
    "disable_vm_metadata",
    "disable_write_with_if_match",
    "enable_request_payer",
    "enable_virtual_host_style",
    "skip_signature",
];
/// Options that are numbers.
const NUMBERS: &[&str] = &[
    "assume_role_duration_seconds",
    "batch_max_operations",
    "delete_max_size",
    "dfs.client.failover.max.attempts",
    "dfs.client.failover.sleep.base.millis",
    "dfs.client.failover.sleep.max.millis",
    "dfs.client.socket-timeout",
];
/// Options that say where the store is: everybody sees them.
const ADDRESSES: &[&str] = &["endpoint", "sts_endpoint"];

/// Whether an option can have this value. OpenDAL says less, and later; and it may repeat the value, which may be a secret.
fn check_value(option: &str, value: &str) -> Result<()> {
    let refused = |why: &str| Err(Error::invalid(format!("option `{option}`: {why}")));
    if value.is_empty() {
        return refused("has no value; leave it out, or give one");
    }
    if value.trim() != value && !PLACES.contains(&option) {
        return refused("its value begins or ends with white space");
    }
    if FLAGS.contains(&option) && !["true", "false", "on", "off"].contains(&value) {
        return refused("is yes or no; write true or false");
    }
    if NUMBERS.contains(&option) && value.parse::<u32>().is_err() {
        return refused("is a number; write one, such as 1000");
    }
    match ADDRESSES.contains(&option) {
        true => check_address(option, value),
        false => Ok(()),
    }
}

/// `http://host:port` or `https://host:port`, perhaps with a path.
fn check_address(option: &str, value: &str) -> Result<()> {
    let refused = |why: String| Err(Error::invalid(format!("option `{option}`: {why}")));
    let (scheme, rest) = match value.split_once("://") {
        Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
        None => (None, value),
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        return refused(
            "credentials have no place in an endpoint, which everybody sees; give them as options of their own"
                .to_owned(),
        );
    }
    match scheme.as_deref() {
        None => refused(format!(
            "`{value}` lacks its scheme; write `http://{value}`, or `https://{value}` if the store speaks TLS"
        )),
        Some("http" | "https") if !is_host(host) => refused(format!(
            "`{value}` names no host; write http://HOST:PORT or https://HOST:PORT"
        )),
        Some("http" | "https") => Ok(()),
        Some(other) => refused(format!(
            "`{value}` has the scheme `{other}`; write http://HOST:PORT or https://HOST:PORT"
        )),
    }
}

/// `name`, `name:port`, `[::1]:port`.
fn is_host(authority: &str) -> bool {
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (authority, None),
    };
    let is_name = !name.is_empty() && !name.contains(char::is_whitespace);
    is_name && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Options that say which objects a mount has.
const PLACES: &[&str] = &["root", "bucket", "container"];

/// # Errors
/// `InvalidArgument` if a mount that is changed like this would have other objects: what is cached is not of those.
pub fn check_same_place(before: &MountRecord, after: &MountRecord) -> Result<()> {
    let moved = |option: &&&str| before.options.get(**option) != after.options.get(**option);
    match PLACES.iter().find(moved) {
        None => Ok(()),
        Some(option) => Err(Error::invalid(format!(
            "option `{option}`: says which objects a mount has, and cannot be changed; `cv umount {path}`, then `cv mount`",
            path = before.path
        ))),
    }
}

/// The URI of what a URI's last part is in, and that part. None where it names a bucket or a host alone.
pub fn above(uri: &str) -> Option<(String, String)> {
    let uri = uri.trim_end_matches('/');
    let (scheme, rest) = uri.split_once("://")?;
    let (above, name) = rest.rsplit_once('/')?;
    let name = urlencoding::decode(name).ok()?;
    (!above.is_empty()).then(|| (format!("{scheme}://{above}"), name.into_owned()))
}

/// The region as the tools of AWS find it: from the environment, then from the profile.
fn aws_region(profile: Option<&str>) -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let of_profile = || {
        let file = variable("AWS_CONFIG_FILE").or_else(|| Some(variable("HOME")? + "/.aws/config"))?;
        let profile = profile.map(str::to_owned).or_else(|| variable("AWS_PROFILE"));
        region_in(
            &std::fs::read_to_string(file).ok()?,
            profile.as_deref().unwrap_or("default"),
        )
    };
    variable("AWS_REGION")
        .or_else(|| variable("AWS_DEFAULT_REGION"))
        .or_else(of_profile)
        // Servers of one's own have no regions, but the signature names one.
        .unwrap_or_else(|| "us-east-1".to_owned())
}

/// The region that a profile names in the text of a configuration file.
fn region_in(text: &str, profile: &str) -> Option<String> {
    let titles = [format!("[{profile}]"), format!("[profile {profile}]")];
    text.lines()
        .map(str::trim)
        .skip_while(|line| !titles.iter().any(|title| title == line))
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .find(|(name, _)| name.trim() == "region")
        .map(|(_, region)| region.trim().to_owned())
        .filter(|region| !region.is_empty())
}

fn unknown_option(scheme: &Scheme, option: &str) -> Error {
    let known = scheme.options.iter().chain(&own_options::ALL);
    let nearest = known.max_by(|a, b| {
        let alike = |name: &str| strsim::jaro_winkler(name, option);
        alike(a).total_cmp(&alike(b))
    });
    let nearest = nearest
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default();
    Error::invalid(format!(
        "unknown option `{option}` for {}{nearest}",
        scheme.names[0]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_bucket_and_prefix_become_options() {
        let target = parse("s3://bucket/a/b/", &options(&[("region", "eu-west-1")])).expect("good");
        let expected = [("bucket", "bucket"), ("region", "eu-west-1"), ("root", "/a/b")];
        assert_eq!(
            target.options,
            expected.map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        assert_eq!(target.scheme, "s3");
    }

    #[test]
    fn two_writable_mounts_have_no_objects_in_common() {
        let mount = |id, uri: &str, writable| MountRecord {
            id: curvine_protocol::MountId(id),
            path: curvine_protocol::CurvinePath::parse(&format!("/m{id}")).expect("a path"),
            uri: uri.to_owned(),
            options: options(&[]),
            settings: curvine_protocol::mount::MountSettings {
                writable,
                ..Default::default()
            },
            created_ns: 0,
        };
        let others = [
            mount(1, "s3://b/x/y", true),
            mount(2, "file:///srv/data", true),
            mount(3, "s3://b/read", false),
        ];
        let said = |uri, writable, pairs: &[(&str, &str)]| {
            let refused = check_shared((uri, &options(pairs)), writable, others.iter()).err();
            refused.map(|error| error.message)
        };
        for (uri, place) in [
            ("s3://b", "/m1"),
            ("s3a://b/x/", "/m1"),
            ("s3://b/x/y", "/m1"),
            ("s3://b/x/y/z", "/m1"),
            ("file:///srv/data/below", "/m2"),
        ] {
            let said = said(uri, true, &[]).unwrap_or_default();
            assert!(said.contains(place) && said.contains("--write"), "{uri}: {said}");
        }
        assert_eq!(said("s3://b", false, &[]), None, "it only reads");
        assert_eq!(said("s3://b/read", true, &[]), None, "the other one only reads");
        assert_eq!(said("s3://b/x/yz", true, &[]), None);
        assert_eq!(said("s3://c/x/y", true, &[]), None);
        let elsewhere = [("endpoint", "http://127.0.0.1:9")];
        assert_eq!(said("s3://b/x/y", true, &elsewhere), None);
        assert_eq!(said("file:///srv/data2", true, &[]), None);
    }

    #[test]
    fn bad_uris_and_options_are_named() {
        for (uri, pairs, says) in [
            ("bucket", &[][..], "not a URI"),
            ("s4://bucket", &[], "unknown scheme `s4`"),
            ("s3:///x", &[], "no bucket"),
            ("s3://b/../c", &[], "`..`"),
            ("file://host/x", &[], "three slashes"),
            (
                "s3://b",
                &[("acces_key_id", "x")],
                "did you mean `access_key_id`?",
            ),
            ("s3://b", &[("cache_qouta", "1GB")], "did you mean `cache_quota`?"),
            ("s3://me:hunter2@b", &[], "no place in a URI"),
            (
                "s3://b",
                &[("endpoint", "http://me:hunter2@h")],
                "no place in an endpoint",
            ),
            (
                "s3://b",
                &[("endpoint", "me:hunter2@h:9000")],
                "no place in an endpoint",
            ),
            (
                "s3://b",
                &[("endpoint", "127.0.0.1:9000")],
                "option `endpoint`: `127.0.0.1:9000` lacks its scheme; write `http://127.0.0.1:9000`",
            ),
            ("s3://b", &[("endpoint", "s3://h")], "write http://HOST:PORT"),
            ("s3://b", &[("endpoint", "http://")], "names no host"),
            ("s3://b", &[("endpoint", "http://h:port")], "names no host"),
            ("s3://b", &[("endpoint", "")], "option `endpoint`: has no value"),
            ("oss://b", &[("sts_endpoint", "sts.example")], "lacks its scheme"),
            (
                "s3://b",
                &[("enable_virtual_host_style", "hunter2")],
                "write true or false",
            ),
            ("s3://b", &[("batch_max_operations", "hunter2")], "is a number"),
            ("hdfs:///dir", &[], "no bucket or host"),
            ("hdfs://nn:port/dir", &[], "`nn:port` is no name node"),
            ("hdfs://a:1,b:2/dir", &[], "dfs.ha.namenodes.NAME"),
            (
                "hdfs://ns/dir",
                &[("dfs.ha.namenode.ns", "a,b")],
                "did you mean `dfs.ha.namenodes.*`?",
            ),
            (
                "hdfs://ns/dir",
                &[("dfs.ha.namenodes.", "a,b")],
                "unknown option `dfs.ha.namenodes.`",
            ),
            (
                "hdfs://nn/dir",
                &[("dfs.client.socket-timeout", "hunter2")],
                "is a number",
            ),
            (
                "s3://b",
                &[("secret_access_key", "hunter2\n")],
                "option `secret_access_key`: its value begins or ends with white space",
            ),
        ] {
            let error = parse(uri, &options(pairs)).expect_err("must be refused");
            assert!(error.message.contains(says), "{error}");
            assert!(!error.message.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn name_nodes_and_the_keys_of_hadoop_are_taken_as_they_are() {
        let keys = [
            ("dfs.ha.namenodes.ns", "a,b"),
            ("dfs.namenode.rpc-address.ns.a", "one:8020"),
        ];
        for (uri, name_node, root) in [
            ("hdfs://ns/a/b/", "ns", "/a/b"),
            ("hdfs://nn:8020", "nn:8020", "/"),
            ("hdfs://10.0.0.1:9000/x", "10.0.0.1:9000", "/x"),
        ] {
            let target = parse(uri, &options(&keys)).expect("good");
            let expected = [keys[0], keys[1], ("name_node", name_node), ("root", root)];
            assert_eq!(
                target.options,
                expected.map(|(k, v)| (k.to_owned(), v.to_owned()))
            );
            assert_eq!(target.scheme, "hdfs");
        }
    }

    #[test]
    fn endpoints_of_stores_are_taken() {
        for endpoint in [
            "http://127.0.0.1:9000",
            "https://s3.eu-west-1.amazonaws.com",
            "HTTP://minio/path",
            "http://[::1]:9000",
            "http://[::1]",
        ] {
            assert_eq!(check_address("endpoint", endpoint), Ok(()), "{endpoint}");
        }
    }

    #[test]
    fn a_change_that_leads_to_other_objects_is_refused() {
        let record = |pairs: &[(&str, &str)]| MountRecord {
            id: curvine_protocol::MountId(1),
            path: curvine_protocol::CurvinePath::parse("/data").expect("valid"),
            uri: "s3://bucket".to_owned(),
            options: options(pairs),
            settings: curvine_protocol::mount::MountSettings::default(),
            created_ns: 0,
        };
        let before = record(&[("region", "r"), ("root", "a")]);
        let renewed = record(&[("region", "s"), ("root", "a"), ("session_token", "t")]);
        assert_eq!(check_same_place(&before, &renewed), Ok(()));
        for moved in [record(&[("root", "b")]), record(&[])] {
            let refused = check_same_place(&before, &moved).expect_err("other objects");
            assert!(
                refused.message.contains("`root`") && refused.message.contains("`cv umount /data`"),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_prefix_is_in_something_and_a_bucket_is_not() {
        let of = |uri| above(uri).map(|(above, name)| format!("{above} {name}"));
        assert_eq!(of("s3://b/a/p%20q/").as_deref(), Some("s3://b/a p q"));
        assert_eq!(of("s3://b/p").as_deref(), Some("s3://b p"));
        assert_eq!(of("s3://b/"), None);
        assert_eq!(of("file:///dir"), None);
    }

    #[test]
    fn a_region_is_the_one_of_the_profile() {
        let text =
            "[default]\nregion = eu-west-1\n[profile far]\noutput=json\n region=ap-east-1\n[profile none]\n";
        assert_eq!(region_in(text, "default").as_deref(), Some("eu-west-1"));
        assert_eq!(region_in(text, "far").as_deref(), Some("ap-east-1"));
        assert_eq!(region_in(text, "none"), None);
        assert_eq!(region_in(text, "unknown"), None);
    }
}
