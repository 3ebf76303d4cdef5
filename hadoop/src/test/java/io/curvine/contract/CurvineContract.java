package io.curvine.contract;

import java.io.IOException;
import java.net.URI;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.contract.AbstractFSContract;

/** A cluster that hadoop/test started, whose masters it names in the system property {@code curvine.masters}. */
public class CurvineContract extends AbstractFSContract {
  public CurvineContract(Configuration configuration) {
    super(configuration);
    addConfResource("contract/curvine.xml");
  }

  /** The root of the cluster. */
  public static URI cluster() {
    String masters = System.getProperty("curvine.masters");
    if (masters == null || masters.isEmpty()) {
      throw new IllegalStateException("the tests need a cluster: run hadoop/test");
    }
    return URI.create("cv://" + masters + "/");
  }

  @Override
  public FileSystem getTestFileSystem() throws IOException {
    return FileSystem.get(cluster(), getConf());
  }

  @Override
  public String getScheme() {
    return "cv";
  }

  @Override
  public Path getTestPath() {
    return new Path("/test");
  }
}
