package io.curvine;

import java.io.IOException;
import java.net.URI;
import java.net.URISyntaxException;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.DelegateToFileSystem;

/** {@link MountedFileSystem} for {@code FileContext}: {@code fs.AbstractFileSystem.s3a.impl} for instance. */
public class Mounted extends DelegateToFileSystem {
  /** As {@code AbstractFileSystem} makes it. */
  public Mounted(URI uri, Configuration configuration) throws IOException, URISyntaxException {
    super(uri, new MountedFileSystem(), configuration, uri.getScheme(), false);
  }

  @Override
  public int getUriDefaultPort() {
    return -1;
  }
}
