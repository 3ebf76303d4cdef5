package io.curvine;

import java.io.IOException;
import java.net.URI;
import java.util.concurrent.TimeUnit;
import org.apache.hadoop.conf.Configuration;

/** The keys of core-site.xml: {@code fs.cv.} and the names of the client section of curvine.toml. */
final class Cluster {
  static final String MASTERS = "fs.cv.masters";
  static final String CONNECT_TIMEOUT = "fs.cv.connect_timeout";
  static final String OPERATION_TIMEOUT = "fs.cv.operation_timeout";
  private static final String DEFAULT_PORT = ":8995";

  private Cluster() {
  }

  /** The masters that a URI means: its authority, or what a key says. */
  static String masters(URI uri, Configuration configuration) throws IOException {
    String authority = uri.getAuthority();
    if (authority == null) {
      String masters = configuration.getTrimmed(MASTERS);
      if (masters == null || masters.isEmpty()) {
        throw new IOException(uri + " names no master; write cv://host:port,host:port/ or set " + MASTERS);
      }
      return masters;
    }
    String named = configuration.getTrimmed(MASTERS + "." + authority);
    if (named != null && !named.isEmpty()) {
      return named;
    }
    StringBuilder masters = new StringBuilder();
    for (String master : authority.split(",")) {
      masters.append(masters.length() == 0 ? "" : ",").append(master);
      masters.append(master.lastIndexOf(':') > master.lastIndexOf(']') ? "" : DEFAULT_PORT);
    }
    return masters.toString();
  }

  /** A handle of the client that this process has for a cluster and a user. */
  static long connect(URI uri, Configuration configuration, String user) throws IOException {
    Request connect = new Request(Call.CONNECT).text(masters(uri, configuration)).text(user)
        .number(configuration.getTimeDuration(CONNECT_TIMEOUT, 4_000, TimeUnit.MILLISECONDS))
        .number(configuration.getTimeDuration(OPERATION_TIMEOUT, 30_000, TimeUnit.MILLISECONDS));
    try {
      return connect.make().number();
    } catch (CurvineException error) {
      // What a machine lacks, or a key says, is no fault of the program.
      throw error.is("InvalidArgument") ? new IOException(error.getMessage(), error) : error.expected();
    }
  }
}
