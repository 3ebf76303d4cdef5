package io.curvine.contract;

import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Options.HandleOpt;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.PathHandle;
import org.apache.hadoop.fs.contract.AbstractContractPathHandleTest;
import org.apache.hadoop.fs.contract.AbstractFSContract;
import org.apache.hadoop.fs.contract.ContractTestUtils;
import org.junit.Test;

public class PathHandleTest extends AbstractContractPathHandleTest {
  private static final byte[] BYTES = {1, 2, 3};

  public PathHandleTest(String name, HandleOpt[] options, boolean serialized) {
    super(name, options, serialized);
  }

  @Override
  protected AbstractFSContract createContract(Configuration configuration) {
    return new CurvineContract(configuration);
  }

  /** A status that was asked for by a link is that of what it leads to, and so is its handle. */
  @Test
  public void testHandleOfWhatALinkLeadsTo() throws Exception {
    FileSystem fs = getFileSystem();
    Path path = path("leads-here");
    ContractTestUtils.createFile(fs, path, true, BYTES);
    Path link = path("link");
    fs.createSymlink(path, link, false);
    PathHandle handle = getHandleOrSkip(fs.getFileStatus(link));
    try (FSDataInputStream in = fs.open(handle)) {
      byte[] read = new byte[BYTES.length];
      in.readFully(read);
      assertArrayEquals(BYTES, read);
    }
    assertTrue(fs.delete(link, false));
  }
}
