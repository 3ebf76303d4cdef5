//! What a node says when it serves: what is where, and what to type next.

use std::io::Write;
use std::time::Duration;

use curvine_conf::LogFormat;
use serde::Serialize;

/// What is served, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// Always `ready`: what kind of line this is.
    pub event: &'static str,
    pub version: &'static str,
    pub role: &'static str,
    pub pid: u32,
    pub cluster: Option<String>,
    /// Where this process serves as a master.
    pub master: Option<String>,
    /// Where this process serves as a worker.
    pub worker: Option<String>,
    /// The masters of a process that is none itself.
    pub masters: Vec<String>,
    /// The worker's directories, each `[TIER]path`.
    pub data_dirs: Vec<String>,
    pub web: Option<String>,
    pub data_dir: Option<String>,
    pub mount_point: Option<String>,
    pub ready_ms: u64,
}

impl Ready {
    /// Says it on standard output: as text, or as a JSON line.
    pub fn say(&self, format: LogFormat) {
        let text = match format {
            LogFormat::Text => self.text(),
            LogFormat::Json => format!(
                "{}\n",
                serde_json::to_string(self).expect("plain fields are plain JSON")
            ),
        };
        let mut out = std::io::stdout().lock();
        // Nobody listening is no reason to stop.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    fn text(&self) -> String {
        let mut lines = vec![format!(
            "Curvine {} is ready after {:.2} s (role {}, pid {})",
            self.version,
            Duration::from_millis(self.ready_ms).as_secs_f64(),
            self.role,
            self.pid
        )];
        let web = self.web.as_ref().map(|address| format!("http://{address}/"));
        let masters = (!self.masters.is_empty()).then(|| self.masters.join(","));
        let blocks = (!self.data_dirs.is_empty()).then(|| self.data_dirs.join(" "));
        let rows = [
            ("cluster", &self.cluster),
            ("master", &self.master),
            ("masters", &masters),
            ("worker", &self.worker),
            ("web", &web),
            ("data", &self.data_dir),
            ("blocks", &blocks),
            ("mounted", &self.mount_point),
        ];
        for (name, value) in rows {
            lines.extend(value.as_ref().map(|value| format!("  {name:<9}{value}")));
        }
        lines.push("Type next:".to_owned());
        lines.extend(
            self.next_commands()
                .into_iter()
                .map(|command| format!("  {command}")),
        );
        lines.push(format!(
            "Ctrl-C or `kill {}` stops it; nothing is lost.\n",
            self.pid
        ));
        lines.join("\n")
    }

    fn next_commands(&self) -> Vec<String> {
        let default = format!("127.0.0.1:{}", curvine_protocol::cluster::DEFAULT_MASTER_PORT);
        let masters = match &self.master {
            Some(master) => master.clone(),
            None => self.masters.join(","),
        };
        let cv = match masters == default {
            true => "cv".to_owned(),
            false => format!("cv --master {masters}"),
        };
        let mut commands = vec![format!("{cv} report")];
        if self.role == "master" {
            commands.push(format!(
                "curvine-node --role worker --master {masters} --data-dir ./curvine-worker"
            ));
            commands.push(format!(
                "curvine-node --role fuse --master {masters} --mount-point ./mnt"
            ));
            return commands;
        }
        commands.push(format!("{cv} mount file:///usr/share/doc /docs"));
        commands.push(match &self.mount_point {
            Some(mount_point) => format!("ls {mount_point}/docs"),
            None => format!("{cv} ls /docs"),
        });
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Ready {
        Ready {
            event: "ready",
            version: "0.1.0",
            role: "all",
            pid: 42,
            cluster: Some("00ff".to_owned()),
            master: Some("127.0.0.1:8995".to_owned()),
            worker: Some("127.0.0.1:8996".to_owned()),
            masters: Vec::new(),
            data_dirs: vec!["[SSD]/d/worker".to_owned()],
            web: Some("127.0.0.1:8990".to_owned()),
            data_dir: Some("/d".to_owned()),
            mount_point: Some("/mnt".to_owned()),
            ready_ms: 310,
        }
    }

    #[test]
    fn people_see_what_is_where_and_what_to_type() {
        assert_eq!(
            ready().text(),
            "Curvine 0.1.0 is ready after 0.31 s (role all, pid 42)\n  \
               cluster  00ff\n  \
               master   127.0.0.1:8995\n  \
               worker   127.0.0.1:8996\n  \
               web      http://127.0.0.1:8990/\n  \
               data     /d\n  \
               blocks   [SSD]/d/worker\n  \
               mounted  /mnt\n\
             Type next:\n  \
               cv report\n  \
               cv mount file:///usr/share/doc /docs\n  \
               ls /mnt/docs\n\
             Ctrl-C or `kill 42` stops it; nothing is lost.\n"
        );
    }

    #[test]
    fn another_port_is_in_the_commands() {
        let ready = Ready {
            master: Some("127.0.0.1:7001".to_owned()),
            mount_point: None,
            ..ready()
        };
        assert_eq!(
            ready.next_commands(),
            [
                "cv --master 127.0.0.1:7001 report",
                "cv --master 127.0.0.1:7001 mount file:///usr/share/doc /docs",
                "cv --master 127.0.0.1:7001 ls /docs"
            ]
        );
    }
}
