package io.curvine.context;

import java.io.IOException;
import org.apache.hadoop.fs.FileContextMainOperationsBaseTest;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.security.UserGroupInformation;
import org.junit.Before;

public class MainOperationsTest extends FileContextMainOperationsBaseTest {
  @Override
  @Before
  public void setUp() throws Exception {
    fc = Contexts.make();
    super.setUp();
  }

  @Override
  protected Path getDefaultWorkingDirectory() throws IOException {
    return fc.makeQualified(new Path("/user/" + UserGroupInformation.getCurrentUser().getShortUserName()));
  }

  @Override
  protected boolean listCorruptedBlocksSupported() {
    return false;
  }
}
