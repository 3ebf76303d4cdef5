package io.curvine.contract;

import java.security.PrivilegedExceptionAction;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.contract.AbstractContractGetEnclosingRoot;
import org.apache.hadoop.fs.contract.AbstractFSContract;
import org.apache.hadoop.security.UserGroupInformation;
import org.junit.Test;

public class EnclosingRootTest extends AbstractContractGetEnclosingRoot {
  @Override
  protected AbstractFSContract createContract(Configuration configuration) {
    return new CurvineContract(configuration);
  }

  /** As in the base class, for a user whom the machine knows: others are refused. */
  @Override
  @Test
  public void testEnclosingRootWrapped() throws Exception {
    UserGroupInformation user = UserGroupInformation.createRemoteUser("nobody");
    PrivilegedExceptionAction<Path> ask =
        () -> getContract().getTestFileSystem().getEnclosingRoot(new Path("/foo/bar"));
    assertEquals(path("/"), user.doAs(ask));
  }
}
