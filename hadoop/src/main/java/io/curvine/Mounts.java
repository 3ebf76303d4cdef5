package io.curvine;

import java.net.URI;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.apache.hadoop.fs.Path;

/** What is mounted of one store: a bucket or a name node, as other file systems of Hadoop call it. */
final class Mounts {
  private final List<Mount> mounts = new ArrayList<>();

  /** A directory of the store, without a slash at its end, and the path of Curvine where it is. */
  static final class Mount {
    final String directory;
    final String path;

    private Mount(String directory, String path) {
      this.directory = directory;
      this.path = path;
    }

    /** Of a path of the store. */
    Path inside(String stored) {
      String below = stored.substring(directory.length());
      return new Path(path.equals("/") && !below.isEmpty() ? below : path + below);
    }

    /** The other way. */
    String outside(String inside) {
      String below = inside.substring(path.equals("/") ? 0 : path.length());
      return (directory + below).isEmpty() ? "/" : directory + below;
    }
  }

  /** Those of the store that a URI names, from all of a cluster: the URIs by the paths where they are mounted. */
  static Mounts of(URI store, Map<String, String> all) {
    Mounts found = new Mounts();
    for (Map.Entry<String, String> one : all.entrySet()) {
      Path root = new Path(one.getValue());
      URI uri = root.toUri();
      boolean same = family(store.getScheme()).equals(family(uri.getScheme()))
          && Objects.equals(store.getAuthority(), uri.getAuthority());
      if (same) {
        found.mounts.add(new Mount(root.isRoot() ? "" : uri.getPath(), one.getKey()));
      }
    }
    return found;
  }

  /** The mount that a path of the store is in: the innermost one; null if it is in none. */
  Mount of(String stored) {
    Mount best = null;
    for (Mount mount : mounts) {
      boolean inside = stored.equals(mount.directory) || stored.startsWith(mount.directory + "/");
      if (inside && (best == null || best.directory.length() < mount.directory.length())) {
        best = mount;
      }
    }
    return best;
  }

  /** Hadoop has had several schemes for S3. */
  private static String family(String scheme) {
    return Arrays.asList("s3a", "s3n").contains(scheme) ? "s3" : scheme;
  }
}
