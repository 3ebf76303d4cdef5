package io.curvine.context;

import org.apache.hadoop.fs.FileContextURIBase;
import org.junit.Before;

public class UriTest extends FileContextURIBase {
  @Override
  @Before
  public void setUp() throws Exception {
    fc1 = Contexts.make();
    fc2 = Contexts.make();
  }
}
