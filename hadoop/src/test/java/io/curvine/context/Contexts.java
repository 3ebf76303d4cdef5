package io.curvine.context;

import io.curvine.contract.CurvineContract;
import java.io.IOException;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileContext;

/** Contexts of the cluster that hadoop/test started. */
final class Contexts {
  private Contexts() {
  }

  static FileContext make() throws IOException {
    Configuration configuration = new Configuration();
    configuration.set("fs.AbstractFileSystem.cv.impl", "io.curvine.Curvine");
    return FileContext.getFileContext(CurvineContract.cluster(), configuration);
  }
}
