//! The status page for people.

use std::fmt::Write;

use curvine_protocol::Result;
use curvine_protocol::cluster::{ClusterStatus, WorkerService, WorkerState};
use curvine_protocol::mount::{Backlog, MountInfo, WriteMode};

const LINE: &str = "writing to a String cannot fail";

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5>\
    <meta name=viewport content='width=device-width'><title>Curvine</title><style>\
    body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color:#222}\
    table{border-collapse:collapse;width:100%;margin:.5em 0 1.5em}td,th{text-align:left;padding:.3em .6em;\
    border-bottom:1px solid #ddd}th{font-weight:600;background:#f6f6f6}.bad{color:#b00020}.num{text-align:right}\
    </style>";

/// The page for a cluster's status and its mounts, or for the error in their place.
pub fn render(role: &str, told: &Result<(ClusterStatus, Vec<MountInfo>)>) -> String {
    let mut out = String::from(HEAD);
    let (status, mounts) = match told {
        Ok((status, mounts)) => (status, mounts),
        Err(error) => {
            write!(
                out,
                "<h1>Curvine ({role})</h1><p class=bad>{}</p>",
                escape(&error.message)
            )
            .expect(LINE);
            return out;
        }
    };
    write!(
        out,
        "<h1>Curvine {}</h1><p>Cluster <code>{}</code>, this node: {role}. {} inodes, {} mounts, up {} s.</p>",
        escape(&status.version),
        status.cluster,
        status.inodes,
        status.mounts,
        status.uptime_s
    )
    .expect(LINE);
    out.push_str("<h2>Masters</h2><table><tr><th>id<th>address<th>role<th class=num>applied</tr>");
    for master in &status.masters {
        write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td class=num>{}</tr>",
            master.id,
            escape(&master.address),
            master.role,
            master.applied_index
        )
        .expect(LINE);
    }
    out.push_str(
        "</table><h2>Workers</h2><table><tr><th>id<th>address<th>state<th>tier<th>directory<th class=num>blocks\
         <th class=num>used<th class=num>available<th class=num>capacity</tr>",
    );
    for worker in &status.workers {
        let state = match worker.state {
            WorkerState::Live => "live",
            WorkerState::Lost => "<span class=bad>lost</span>",
        };
        let service = match worker.service {
            WorkerService::InService => "",
            WorkerService::Draining => ", decommissioning",
            WorkerService::Drained => ", decommissioned",
            WorkerService::Maintenance { .. } => ", in maintenance",
        };
        for disk in &worker.disks {
            let failure = disk
                .failure
                .as_ref()
                .map(|failure| format!(" <span class=bad>{}</span>", escape(failure)))
                .unwrap_or_default();
            write!(
                out,
                "<tr><td>{}<td>{}<td>{state}{service}<td>{}<td>{}{failure}<td class=num>{}<td class=num>{}<td class=num>{}\
                 <td class=num>{}</tr>",
                worker.id,
                escape(&worker.address),
                disk.tier,
                escape(&disk.path),
                disk.blocks,
                size(disk.used_bytes),
                size(disk.room_bytes()),
                size(disk.capacity_bytes)
            )
            .expect(LINE);
        }
    }
    out.push_str(
        "</table><h2>Mounts</h2><table><tr><th>path<th>of<th>for<th class=num>files waiting<th class=num>bytes\
         <th class=num>under way<th class=num>read<th class=num>of it cached<th class=num>fetched<th class=num>in cache<th class=num>cache quota<th>failure</tr>",
    );
    for mount in mounts {
        let nothing = Backlog::default();
        let backlog = mount.backlog.as_ref().unwrap_or(&nothing);
        let used_for = match (mount.settings.writable, mount.settings.write_mode) {
            (false, _) => "reading",
            (true, WriteMode::Through) => "writing through",
            (true, WriteMode::Back) => "writing back",
        };
        let failure = backlog
            .failure()
            .map(|(key, failure)| format!("<span class=bad>{}: {}</span>", escape(key), escape(failure)));
        let traffic = mount.traffic.unwrap_or_default();
        let cached = traffic.hit_ratio().map(|ratio| format!("{:.1} %", ratio * 100.0));
        write!(
            out,
            "<tr><td>{}<td>{}<td>{used_for}<td class=num>{}<td class=num>{}<td class=num>{}\
             <td class=num>{}<td class=num>{}<td class=num>{}<td class=num>{}<td class=num>{}<td>{}</tr>",
            escape(mount.path.as_str()),
            escape(&mount.uri),
            backlog.files,
            size(backlog.bytes),
            backlog.effects.len(),
            size(traffic.read_bytes()),
            cached.unwrap_or_default(),
            size(traffic.fetched_bytes),
            size(traffic.cached_bytes),
            mount.settings.cache_quota_bytes.map(size).unwrap_or_default(),
            failure.unwrap_or_default()
        )
        .expect(LINE);
    }
    out.push_str("</table><h2>Duties of the leader</h2><table><tr><th>duty<th>doing<th>last try</tr>");
    for duty in &status.duties {
        let outcome = match &duty.failure {
            Some(failure) => format!("<span class=bad>{}</span>", escape(failure)),
            None => "ok".to_owned(),
        };
        write!(
            out,
            "<tr><td>{}<td>{}<td>{outcome}</tr>",
            escape(&duty.name),
            escape(&duty.doing)
        )
        .expect(LINE);
    }
    out.push_str("</table><p><a href=/metrics>metrics</a> · <a href=/api/status>status as JSON</a></p>");
    out
}

/// Bytes for people: `1.5 GiB`.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            let digits = usize::from(value.fract() > 0.05 && value < 100.0);
            return format!("{value:.digits$} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} PiB")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use curvine_protocol::cluster::{
        DiskStatus, DutyStatus, Labels, MasterRole, MasterStatus, Tier, WorkerStatus,
    };
    use curvine_protocol::mount::{MountSettings, MountTraffic};
    use curvine_protocol::{ClusterId, CurvinePath, Error, ErrorKind, MountId, NodeId, WorkerId};
    use std::collections::BTreeMap;

    #[test]
    fn what_others_named_is_shown_as_text() {
        let status = ClusterStatus {
            cluster: ClusterId(1),
            version: "0.1.0".to_owned(),
            masters: vec![MasterStatus {
                id: NodeId(1),
                address: "127.0.0.1:8995".to_owned(),
                role: MasterRole::Leader,
                applied_index: 42,
                is_reachable: true,
            }],
            workers: vec![WorkerStatus {
                id: WorkerId(3),
                address: "127.0.0.1:8996".to_owned(),
                state: WorkerState::Live,
                disks: vec![DiskStatus {
                    tier: Tier::Ssd,
                    path: "/data/<script>".to_owned(),
                    capacity_bytes: 3 << 30,
                    used_bytes: 1536,
                    available_bytes: 3 << 29,
                    blocks: 9,
                    failure: None,
                    cached_bytes: 0,
                    pinned_bytes: 0,
                }],
                last_heartbeat_ms_ago: 10,
                service: WorkerService::InService,
                drain_left: None,
                labels: Labels::default(),
                version: "0.1.0".to_owned(),
            }],
            inodes: 5,
            mounts: 0,
            uptime_s: 1,
            duties: vec![DutyStatus {
                name: "loads".to_owned(),
                doing: "none running".to_owned(),
                failure: Some("<b>no".to_owned()),
            }],
        };
        let mount = MountInfo {
            id: MountId(1),
            path: CurvinePath::parse("/lake").expect("a path"),
            uri: "s3://lake".to_owned(),
            options: BTreeMap::new(),
            settings: MountSettings {
                writable: true,
                cache_quota_bytes: Some(4096),
                ..MountSettings::default()
            },
            created_ns: 0,
            backlog: Some(Backlog {
                files: 2,
                bytes: 1536,
                failures: vec![("a&b".to_owned(), "no".to_owned())],
                ..Backlog::default()
            }),
            hidden: Vec::new(),
            traffic: Some(MountTraffic {
                hits: 3,
                hit_bytes: 3072,
                misses: 1,
                miss_bytes: 1024,
                fetched_bytes: 1 << 20,
                cached_bytes: 2048,
                quota_evicted_bytes: 7,
            }),
        };
        let page = render("all", &Ok((status, vec![mount])));
        assert!(page.contains(
            "<tr><td>/lake<td>s3://lake<td>writing through<td class=num>2<td class=num>1.5 KiB<td class=num>0\
             <td class=num>4 KiB<td class=num>75.0 %<td class=num>1 MiB<td class=num>2 KiB\
             <td class=num>4 KiB<td><span class=bad>a&amp;b: no</span></tr>"
        ));
        assert!(page.contains(
            "<tr><td>3<td>127.0.0.1:8996<td>live<td>SSD<td>/data/&lt;script&gt;<td class=num>9\
             <td class=num>1.5 KiB<td class=num>1.5 GiB<td class=num>3 GiB</tr>"
        ));
        assert!(page.contains("<tr><td>loads<td>none running<td><span class=bad>&lt;b&gt;no</span></tr>"));
        assert!(!page.contains("<script>"));
    }

    #[test]
    fn a_silent_master_is_said() {
        let page = render(
            "worker",
            &Err(Error::new(ErrorKind::Timeout, "the master does not answer")),
        );
        assert!(page.ends_with("<h1>Curvine (worker)</h1><p class=bad>the master does not answer</p>"));
    }
}
