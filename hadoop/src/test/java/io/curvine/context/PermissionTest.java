package io.curvine.context;

import org.apache.hadoop.fs.FileContext;
import org.apache.hadoop.fs.FileContextPermissionBase;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.test.GenericTestUtils;
import org.slf4j.LoggerFactory;
import org.slf4j.event.Level;

public class PermissionTest extends FileContextPermissionBase {
  public PermissionTest() {
    // The base class has every file system of the process tell all that it does.
    GenericTestUtils.setLogLevel(LoggerFactory.getLogger(FileSystem.class), Level.WARN);
  }

  @Override
  protected FileContext getFileContext() throws Exception {
    return Contexts.make();
  }
}
