package io.curvine.context;

import org.apache.hadoop.fs.FileContextCreateMkdirBaseTest;
import org.junit.Before;

public class CreateMkdirTest extends FileContextCreateMkdirBaseTest {
  @Override
  @Before
  public void setUp() throws Exception {
    fc = Contexts.make();
    super.setUp();
  }
}
