package io.curvine.context;

import org.apache.hadoop.fs.FileContextUtilBase;
import org.junit.Before;

public class UtilTest extends FileContextUtilBase {
  @Override
  @Before
  public void setUp() throws Exception {
    fc = Contexts.make();
    super.setUp();
  }
}
