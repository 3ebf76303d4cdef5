package io.curvine;

import java.io.IOException;
import java.net.URI;
import java.net.URISyntaxException;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.DelegateToFileSystem;
import org.apache.hadoop.fs.Options;
import org.apache.hadoop.fs.Path;

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

  /** In one step where it is in a mount: Hadoop's class would delete what is to be replaced, and then rename. */
  @Override
  public void renameInternal(Path from, Path to, boolean overwrite) throws IOException {
    checkPath(from);
    checkPath(to);
    MountedFileSystem files = (MountedFileSystem) fsImpl;
    files.rename(from, to, overwrite ? Options.Rename.OVERWRITE : Options.Rename.NONE);
  }
}
