package io.curvine;

import java.util.concurrent.TimeUnit;
import org.apache.hadoop.conf.Configuration;

/** The keys of core-site.xml: {@code fs.cv.} and, where there is one, the name in the client section of curvine.toml. */
enum Key {
  MASTERS("masters", "", "the masters of paths without an authority, `cv:///data`"),
  MASTERS_OF("masters.NAME", "", "the masters of `cv://NAME/`"),
  CONNECT_TIMEOUT("connect_timeout", "4s", "how long a new client tries to reach a master"),
  OPERATION_TIMEOUT("operation_timeout", "30s", "how long an operation is retried before it fails"),
  BLOCK_SIZE("block_size", "128m", "the length of blocks where a program asks for none: 64k to 4g"),
  ORIGINAL("original.SCHEME.impl", "that of Hadoop for `s3a`, `hdfs`, `oss` and `gs`",
      "the class that serves what is not mounted of a scheme, where that is given to `MountedFileSystem`");

  private final String pattern;
  private final String fallback;
  private final String says;

  Key(String name, String fallback, String says) {
    pattern = "fs.cv." + name;
    this.fallback = fallback;
    this.says = says;
  }

  String key() {
    return pattern;
  }

  /** The key of a name or scheme, which the table has in capitals. */
  String of(String name) {
    return pattern.replaceAll("[A-Z]+", java.util.regex.Matcher.quoteReplacement(name));
  }

  long milliseconds(Configuration configuration) {
    return configuration.getTimeDuration(pattern, fallback, TimeUnit.MILLISECONDS);
  }

  long bytes(Configuration configuration) {
    return configuration.getLongBytes(pattern, org.apache.hadoop.util.StringUtils.TraditionalBinaryPrefix.string2long(fallback));
  }

  /** Its row in the table of documentation. */
  String row() {
    return "| `" + pattern + "` | " + (fallback.isEmpty() ? "" : fallback + " ") + "| " + says + " |";
  }
}
