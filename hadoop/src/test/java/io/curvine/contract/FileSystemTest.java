package io.curvine.contract;

import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.FileSystemContractBaseTest;
import org.junit.Before;

public class FileSystemTest extends FileSystemContractBaseTest {
  @Before
  public void setUp() throws Exception {
    fs = FileSystem.get(CurvineContract.cluster(), new Configuration());
  }
}
