package io.curvine.context;

import io.curvine.contract.CurvineContract;
import java.net.URI;
import org.apache.hadoop.fs.FCStatisticsBaseTest;
import org.apache.hadoop.fs.FileContext;
import org.apache.hadoop.fs.FileSystem.Statistics;
import org.junit.After;
import org.junit.Assert;
import org.junit.Before;

public class StatisticsTest extends FCStatisticsBaseTest {
  @Before
  public void setUp() throws Exception {
    fc = Contexts.make();
    // Those of a cluster are the process's: other tests have counted, too.
    FileContext.clearStatistics();
    fc.mkdir(fileContextTestHelper.getTestRootPath(fc, "test"), FileContext.DEFAULT_PERM, true);
  }

  @After
  public void tearDown() throws Exception {
    fc.delete(fileContextTestHelper.getTestRootPath(fc, "test"), true);
  }

  @Override
  protected void verifyReadBytes(Statistics statistics) {
    // One block read, and one at a position.
    Assert.assertEquals(2 * blockSize, statistics.getBytesRead());
  }

  @Override
  protected void verifyWrittenBytes(Statistics statistics) {
    Assert.assertEquals(blockSize, statistics.getBytesWritten());
  }

  @Override
  protected URI getFsUri() {
    return CurvineContract.cluster();
  }
}
