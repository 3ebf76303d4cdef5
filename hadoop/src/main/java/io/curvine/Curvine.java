package io.curvine;

import java.io.IOException;
import java.net.URISyntaxException;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.DelegateToFileSystem;

/** The same file system for {@code FileContext}. */
public class Curvine extends DelegateToFileSystem {
  /** As {@code AbstractFileSystem} makes it. */
  public Curvine(java.net.URI uri, Configuration configuration) throws IOException, URISyntaxException {
    super(uri, new CurvineFileSystem(), configuration, CurvineFileSystem.SCHEME, false);
  }

  @Override
  public int getUriDefaultPort() {
    return -1;
  }
}
