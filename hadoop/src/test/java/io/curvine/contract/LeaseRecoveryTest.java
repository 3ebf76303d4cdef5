package io.curvine.contract;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.LeaseRecoverable;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.contract.AbstractContractLeaseRecoveryTest;
import org.apache.hadoop.fs.contract.AbstractFSContract;
import org.apache.hadoop.fs.contract.ContractTestUtils;
import org.apache.hadoop.test.LambdaTestUtils;
import org.junit.Test;

public class LeaseRecoveryTest extends AbstractContractLeaseRecoveryTest {
  @Override
  protected AbstractFSContract createContract(Configuration configuration) {
    return new CurvineContract(configuration);
  }

  /** As HBase takes the log of a server that may still live. */
  @Test
  public void aFileIsTakenFromAWriterThatLivesWithWhatItHasFlushed() throws Exception {
    FileSystem fs = getFileSystem();
    LeaseRecoverable recoverable = (LeaseRecoverable) fs;
    Path path = methodPath();
    FSDataOutputStream out = fs.create(path);
    out.write("flushed".getBytes(UTF_8));
    out.hflush();
    assertFalse(recoverable.isFileClosed(path));
    recoverable.recoverLease(path);
    LambdaTestUtils.await(30_000, 100, () -> recoverable.isFileClosed(path));
    assertTrue(recoverable.recoverLease(path));
    LambdaTestUtils.intercept(IOException.class, () -> {
      out.write(" and more".getBytes(UTF_8));
      out.hflush();
    });
    LambdaTestUtils.intercept(IOException.class, out::close);
    assertEquals("flushed", ContractTestUtils.readUTF8(fs, path, 7));
    assertEquals(7, fs.getFileStatus(path).getLen());
  }
}
