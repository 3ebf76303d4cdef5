package io.curvine;

import java.io.IOException;
import java.net.URI;
import org.apache.hadoop.conf.Configuration;

/** Which cluster a URI means, and the client that this process has for it. */
final class Cluster {
  private static final String DEFAULT_PORT = ":8995";

  private Cluster() {
  }

  /** The masters that a URI means: its authority, or what a key says. */
  static String masters(URI uri, Configuration configuration) throws IOException {
    String authority = uri.getAuthority();
    if (authority == null) {
      String masters = configuration.getTrimmed(Key.MASTERS.key());
      if (masters == null || masters.isEmpty()) {
        throw new IOException(uri + " names no master; write cv://host:port,host:port/ or set " + Key.MASTERS.key());
      }
      return masters;
    }
    String named = configuration.getTrimmed(Key.MASTERS_OF.of(authority));
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
        .number(Key.CONNECT_TIMEOUT.milliseconds(configuration))
        .number(Key.OPERATION_TIMEOUT.milliseconds(configuration));
    try {
      return connect.make().number();
    } catch (CurvineException error) {
      // What a machine lacks, or a key says, is no fault of the program.
      throw error.is("InvalidArgument") ? new IOException(error.getMessage(), error) : error.expected();
    }
  }
}
