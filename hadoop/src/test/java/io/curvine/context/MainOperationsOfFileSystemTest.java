package io.curvine.context;

import io.curvine.contract.CurvineContract;
import java.io.IOException;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSMainOperationsBaseTest;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.junit.Assume;

public class MainOperationsOfFileSystemTest extends FSMainOperationsBaseTest {
  @Override
  protected FileSystem createFileSystem() throws Exception {
    return FileSystem.newInstance(CurvineContract.cluster(), new Configuration());
  }

  /** The masters keep permissions and do not enforce them yet. */
  @Override
  public void testListStatusThrowsExceptionForUnreadableDir() {
    Assume.assumeTrue("permissions are enforced", false);
  }

  /** As above. */
  @Override
  public void testGlobStatusThrowsExceptionForUnreadableDir() {
    Assume.assumeTrue("permissions are enforced", false);
  }

  @Override
  protected Path getDefaultWorkingDirectory() throws IOException {
    return fSys.getHomeDirectory();
  }
}
