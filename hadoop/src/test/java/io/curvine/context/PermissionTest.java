package io.curvine.context;

import org.apache.hadoop.fs.FileContext;
import org.apache.hadoop.fs.FileContextPermissionBase;

public class PermissionTest extends FileContextPermissionBase {
  @Override
  protected FileContext getFileContext() throws Exception {
    return Contexts.make();
  }
}
